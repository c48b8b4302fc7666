"""Alerts against a real Prometheus server: each fires when what it is about is done to the host, and resolves.

Of the rules' minutes seconds are made, which a busy machine may miss: what each expression means is proven by
tests/observability/rules/. The one on refusals: ``test_export``; those on calls that last, and on a dead
exporter: ``test_alerts_on_calls``.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pytest

from tests.live.bad_disk import BadDisk
from tests.live.guest import Steps, frozen, load_modules, run, truth, workload
from tests.live.lossy import Writer, full_below
from tests.live.refusals import SIZE, VICTIM, fill
from tests.live.test_alerts_on_calls import hasty
from tests.live.test_export import SCRAPE_S, calls, exporter, get, small, value
from tests.observability.panels import DASHBOARDS
from tests.observability.prometheus import Prometheus, eventually

pytestmark = pytest.mark.nightly

#: Files on a full filesystem, and refusals of each that are told one by one: more than the ring buffer takes.
FILES, TOLD = 400, 16
#: Threads that wait for the same at once, and for how many a return probe has places (tracer/probes/waits.py).
CROWD, PLACES = 1131, 1024


def free_address() -> str:
    """A host:port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"127.0.0.1:{free.getsockname()[1]}"


@contextmanager
def node_exporter() -> Iterator[str]:
    """The one whose metrics tell how full filesystems are; its host:port."""
    address = free_address()
    command = [
        "prometheus-node-exporter", "--collector.disable-defaults", "--collector.filesystem",
        "--collector.filesystem.mount-points-exclude=^/(dev|proc|sys)($|/)", f"--web.listen-address={address}",
    ]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield address
        finally:
            process.terminate()


@dataclass
class Host:
    """Two exporters, one that looks at mapped files, and one with the least rights and a single place for sources."""

    server: Prometheus
    spare: subprocess.Popen[str]
    #: Of that one.
    address: str
    #: Where a third one is looked for.
    later: str

    def fired(self, since: float) -> set[str]:
        """The alerts that fire, or have done so since that moment of time.monotonic()."""
        return self.server.fired(time.monotonic() - since)

    def fires(self, alert: str, since: float | None = None) -> None:
        """Wait until it does, or has done ``since`` then: a busy machine may look when the window is over."""
        began = time.monotonic() if since is None else since
        eventually(lambda: alert in self.fired(began), f"{alert} is not among {self.server.alerts()}")
        print(f"fires: {alert}", flush=True)

    def resolves(self, alert: str) -> None:
        """Wait until it does not any more."""
        eventually(lambda: alert not in self.server.alerts(), f"{alert} still fires")
        print(f"resolves: {alert}", flush=True)

    def waits(self, alert: str, seconds: float = 1) -> bool:
        """Whether it does not fire yet, after a while."""
        time.sleep(seconds)
        if alert not in self.server.alerts():
            return True
        print(f"fires: {alert}", flush=True)
        return False

    @contextmanager
    def provoked(self, alert: str) -> Iterator[None]:
        """It fires because of what is done inside, and resolves by itself."""
        assert alert not in self.server.alerts()
        began = time.monotonic()
        yield
        self.fires(alert, began)
        self.resolves(alert)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """What is watched."""
    directory = tmp_path_factory.mktemp("alerts")
    # Before exporters start: what comes later is not hooked by the one without rights.
    load_modules("loop", "ext4", "dm_mod")
    subprocess.run(["modprobe", "-r", "f2fs"], check=False)
    later = free_address()
    rules = [hasty(DASHBOARDS / name, directory) for name in ("rules.yml", "alerts.yml")]
    with (
        exporter("--risk") as (_, risk),
        exporter("--max-sources", "1") as (spare, address),
        node_exporter() as node,
        Prometheus(
            directory, {"mkwrite": risk, "spare": address, "node": node, "later": later}, rules, SCRAPE_S
        ) as server,
    ):
        eventually(lambda: len(server.query("max_over_time(up[10m]) == 1")) == 3, str(server.query("up")))
        yield Host(server, spare, address, later)


def seen(host: Host, place: Path) -> None:
    """Wait until its counters of failures are known, which are 0."""
    expression = f'sum(mkwrite_failures_total{{job="mkwrite",mountpoint="{place}"}})'
    eventually(lambda: host.server.value(expression) == 0, f"{place} is not known")


def refused(stream: BinaryIO) -> int:
    """Let system calls write to a hole that cannot be filled: no signal, but an error."""
    number = 0
    with (
        Path("/dev/zero").open("rb", buffering=0) as zeros,
        mmap.mmap(stream.fileno(), mmap.PAGESIZE) as memory,
        memoryview(memory) as view,
        view[:1] as byte,  # of more, the kernel tries the rest once more
    ):
        for _ in range(TOLD):
            try:
                os.readv(zeros.fileno(), [byte])
            except OSError as error:
                number += error.errno == errno.EFAULT
    return number


def out_of_space(text: str) -> int:
    """Refusals that were counted, whatever the place is called."""
    counts = re.findall(r'^mkwrite_failures_total{class="refused",errno="ENOSPC".* (\S+)$', text, re.MULTILINE)
    return sum(int(float(number)) for number in counts)


def test_a_file_that_was_truncated(host: Host) -> None:
    place = small("truncated")
    seen(host, place)
    with host.provoked("MkwriteFileTruncated"):
        done = subprocess.run([VICTIM, "shrunk", str(place / "file"), str(SIZE), "8193", "40000"], check=False)
        assert done.returncode == -signal.SIGBUS
    run("umount", str(place))


def test_a_disk_that_cannot_be_read(host: Host) -> None:
    disk = BadDisk("unreadable")
    seen(host, disk.place)
    with host.provoked("MkwritePageUnreadable"):
        disk.fail()
        done = subprocess.run([VICTIM, "load", str(disk.file), str(SIZE), "8192"], check=False)
        assert done.returncode == -signal.SIGBUS


def test_writes_that_are_lost_at_writeback(host: Host) -> None:
    with full_below("late") as disk, Writer(disk.place / "file", 3) as writer:
        assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
        disk.fill()
        seen(host, disk.place)
        with host.provoked("MkwriteWriteLost"):
            writer.does("store 3")
            disk.write_back()


def test_a_disk_that_fills_up_while_files_on_it_are_written_through_mappings(host: Host) -> None:
    place = small("filling")
    found = os.statvfs(place)
    with (place / "filler").open("wb", buffering=0) as filler:
        filler.write(bytes(found.f_bavail * found.f_frsize * 7 // 10))
        assert "MkwriteSpaceRunningOut" not in host.server.alerts()
        while host.waits("MkwriteSpaceRunningOut"):
            workload("first-write", place / "mapped", 7)
            filler.write(bytes(32 << 10))  # until there is no space
            os.fsync(filler.fileno())
    (place / "filler").unlink()
    host.resolves("MkwriteSpaceRunningOut")
    run("umount", str(place))


def test_mapped_files_that_may_ask_for_more_than_is_left_and_a_refusal_that_is_near(host: Host) -> None:
    place = small("asking")
    with subprocess.Popen(
        [VICTIM, "store", str(place / "sparse"), str(64 << 20), "0"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        host.fires("MkwriteFilesExceedSpace")
        with (place / "filler").open("wb", buffering=0) as filler:
            while host.waits("MkwriteRefusalNear"):
                filler.write(bytes(32 << 10))
        process.kill()
    host.resolves("MkwriteRefusalNear")
    host.resolves("MkwriteFilesExceedSpace")
    run("umount", str(place))


def test_more_sources_than_series(host: Host) -> None:
    first, second = small("one"), small("two")
    assert "MkwriteSeriesDropped" not in host.server.alerts()
    for place in (first, second):
        workload("first-write", place / "file", 3)
        get(host.address)
    host.fires("MkwriteSeriesDropped")
    run("umount", str(first))
    workload("first-write", second / "more", 3)
    host.resolves("MkwriteSeriesDropped")
    run("umount", str(second))


def test_more_waits_at_once_than_returns_can_be_seen(host: Host) -> None:
    place = small("crowd")
    with exporter("--listen", host.later, "--backend", "kprobe") as (_, address), truth("do_page_mkwrite") as entered:
        known = 'mkwrite_lost_total{job="later",kind="missed_probe"}'
        eventually(lambda: host.server.value(known) == 0, "nothing is known of losses")
        steps = Steps("blocked", place / "file", 97, CROWD)
        steps.reach()
        with host.provoked("MkwriteLosingData"):
            before = entered.hits()
            with frozen(place):
                steps.go()
                eventually(lambda: entered.hits() - before == CROWD, f"{entered.hits() - before} calls")
            steps.end()
        text = get(address)
    lost = value(text, "mkwrite_lost_total", kind="missed_probe")
    counted = calls(text, place, path="write_protect")
    print(f"{CROWD} calls at once, {counted} counted, {lost:.0f} returns of what they waited in missed")
    assert counted == CROWD  # the calls themselves have more places
    assert CROWD - PLACES <= lost < CROWD
    run("umount", str(place))


def test_failures_while_the_exporter_does_not_read_are_counted_and_nobody_is_alerted(host: Host) -> None:
    place = small("unread")
    files = [(place / f"hole-{number}").open("w+b") for number in range(FILES)]
    for stream in files:
        stream.truncate(mmap.PAGESIZE)
    fill(place)
    before, began = out_of_space(get(host.address)), time.monotonic()
    host.spare.send_signal(signal.SIGSTOP)
    try:
        made = sum(map(refused, files))
    finally:
        host.spare.send_signal(signal.SIGCONT)
    for stream in files:
        stream.close()
    counted = out_of_space(text := get(host.address)) - before
    lost = value(text, "mkwrite_lost_total", kind="events_full")
    print(f"{made} writes refused, {counted} counted, {lost:.0f} lost as events")
    assert made == FILES * TOLD == counted
    assert 0 < lost < made
    # Not how much it rose: nothing was scraped for as long as that took.
    known = f'mkwrite_lost_total{{job="spare",kind="events_full"}} >= {lost:.0f}'
    eventually(lambda: host.server.query(known), "the server does not know of the events")
    time.sleep(3 * SCRAPE_S)  # rules are looked at each second
    assert "MkwriteLosingData" not in host.fired(began)
    run("umount", str(place))


def test_a_module_that_comes_when_the_rights_to_hook_it_are_gone(host: Host) -> None:
    assert "MkwriteHookMissing" not in host.server.alerts()
    load_modules("f2fs")
    host.fires("MkwriteHookMissing")
    missing = [one["metric"] for one in host.server.query("mkwrite_hook_attached == 0")]
    assert {(one["job"], "f2fs" in one["function"], one["reason"]) for one in missing} == {("spare", True, "late")}
    host.spare.send_signal(signal.SIGTERM)
    assert host.spare.wait(300) == 0
    with exporter("--listen", host.address, "--max-sources", "1"):
        host.resolves("MkwriteHookMissing")
        hooked = 'mkwrite_hooks_attached{job="spare"} unless on (job) mkwrite_hook_attached{job="spare"}'
        eventually(lambda: host.server.query(hooked), "what is missing is still not hooked")
