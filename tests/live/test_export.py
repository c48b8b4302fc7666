"""The exporter on a real kernel: exact counts over HTTP, mounts that come and go, and a real Prometheus server."""

from __future__ import annotations

import json
import mmap
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.live.answering import answering, holds_nothing
from tests.live.guest import ROOT, WORKLOAD, command, eventually, frozen, run, workload
from tests.live.slow_disk import Waiter
from tests.observability.panels import DASHBOARDS, queries
from tests.observability.prometheus import Prometheus
from tracer.model.waits import Wait

#: Odd primes.
ROUNDS, FIRST = 7, 61
BPF_STATS = Path("/proc/sys/kernel/bpf_stats_enabled")
#: A scrape may take seconds on two emulated CPUs, and has no longer than until the next one.
SCRAPE_S = 4


@contextmanager
def exporter(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and its host:port."""
    listen = command("export", "--listen", "127.0.0.1:0", "--fs", "ext4", *arguments)
    with subprocess.Popen(listen, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            match = re.search(r"http://(\S+)/metrics", line)
            assert match, line + process.stderr.read()
            yield process, match[1]
        finally:
            process.terminate()


def small(name: str) -> Path:
    """A fresh ext4 of 16 MiB."""
    place = ROOT / name
    place.mkdir(parents=True)
    image = place.with_suffix(".img")
    with image.open("wb") as stream:
        stream.truncate(16 << 20)
    run("mkfs.ext4", "-q", str(image))
    run("mount", "-o", "loop", str(image), str(place))
    return place


def fill_and_die(place: Path) -> None:
    """Leave no block free, then let a process write into a hole."""
    with (place / "filler").open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while True:
                    stream.write(bytes(size))
    victim = subprocess.run(
        [shutil.copy(WORKLOAD, "/tmp/victim"), "first-write", str(place / "hole"), "7"], check=False
    )
    assert victim.returncode == -signal.SIGBUS
    (place / "filler").unlink()


def value(text: str, name: str, **labels: str) -> float:
    """A sample that must be there, once."""
    (found,) = (
        sample.value
        for family in parse(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    )
    return found


def get(address: str, path: str = "/metrics") -> str:
    """A page that must be there."""
    connection = HTTPConnection(address, timeout=300)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    assert answer.status == 200, body
    return body


def counters(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample that must not go backwards."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        if family.type in ("counter", "histogram") and family.name.startswith("mkwrite")
        for sample in family.samples
    }


def calls(text: str, mountpoint: Path | str, **wanted: str) -> int:
    """Calls on a mount."""
    wanted["mountpoint"] = str(mountpoint)
    found = (
        n for (name, labels), n in counters(text).items() if name == "mkwrite_calls_total" and wanted.items() <= labels
    )
    return int(sum(found))


@pytest.mark.nightly
@pytest.mark.usefixtures("clean_kernel")
def test_filesystems_that_come_and_go_keep_their_counts() -> None:
    place = small("churn")
    run("umount", str(place))
    image = place.with_suffix(".img")
    before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    with exporter("--max-sources", "3") as (process, address):
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert re.findall(r"^Cap(?:Prm|Eff|Bnd):\s+(\w+)$", status, re.MULTILINE) == [f"{1 << 39:016x}"] * 3  # CAP_BPF
        assert not re.search(r"^mkwrite_hook_attached{.*} 0.0$", get(address), re.MULTILINE)
        holds_nothing(answering(process.pid))
        for number in range(ROUNDS):
            place = ROOT / f"churn-{number}"
            place.mkdir()
            # The same device number every time, or nearly.
            run("mount", "-o", "loop", str(image), str(place))
            BPF_STATS.write_text("1" if number == ROUNDS - 1 else "0")
            workload("first-write", place / "file", number + 1)
            now = counters(text := get(address))
            assert calls(text, place, path="first_write", outcome="writable") == number + 1
            assert {key for key, count in now.items() if count < before.get(key, 0)} == set()
            dirtied = value(text, "mkwrite_dirtied_bytes_total", fstype="ext4", mountpoint=str(place))
            assert dirtied == (number + 1) * mmap.PAGESIZE
            assert re.search(r"^mkwrite_series_dropped 0\.0$", text, re.MULTILINE)
            before |= now
            (place / "file").unlink()
            run("umount", str(place))
            get(address)  # it has seen it go then
            # Runs on other filesystems are counted, too.
            timed: Counter[str] = Counter()
            for (name, _), n in now.items():
                if name == "mkwrite_bpf_runs_total":
                    timed[name] += int(n)
                elif name == "mkwrite_bpf_run_seconds_total":
                    timed[name] += int(n * 1e9)
            assert bool(timed) == (number == ROUNDS - 1)
        BPF_STATS.write_text("0")
        assert timed["mkwrite_bpf_runs_total"] >= ROUNDS and timed["mkwrite_bpf_run_seconds_total"] > 0
        assert len({key for key in now if key[0] == "mkwrite_calls_total"}) <= 2 * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
    total = sum(count for (name, labels), count in before.items() if name == "mkwrite_calls_total")
    assert total >= sum(range(1, ROUNDS + 1))


@pytest.mark.nightly
@pytest.mark.usefixtures("clean_kernel")
def test_a_device_that_is_formatted_anew_has_another_type() -> None:
    place = small("anew")
    image, device = place.with_suffix(".img"), place.stat().st_dev
    expected: Counter[str] = Counter()
    with exporter("--fs", "ext3") as (_, address):
        for pages, fstype in ((FIRST, "ext3"), (7, "ext4"), (11, "ext3")):
            run("umount", str(place))
            run(f"mkfs.{fstype}", "-q", "-F", str(image))
            run("mount", "-t", fstype, "-o", "loop", str(image), str(place))
            assert place.stat().st_dev == device
            workload("first-write", place / "file", pages)
            expected[fstype] += pages
            text = get(address)
            # One driver and one handler for both: only the type tells.
            assert {name: calls(text, place, fstype=name) for name in expected} == expected
            for name, number in expected.items():
                labels = {"fstype": name, "mountpoint": str(place)}
                assert value(text, "mkwrite_dirtied_bytes_total", **labels) == number * mmap.PAGESIZE
    run("umount", str(place))


@pytest.mark.nightly
@pytest.mark.usefixtures("clean_kernel")
def test_what_a_frozen_filesystem_holds_up_grows_and_is_booked_once_it_returns() -> None:
    place = small("held")
    with Waiter(place / "file", 7) as waiter:
        of_place = {"fstype": "ext4", "mountpoint": str(place)}

        def waited(text: str, reason: Wait) -> float:
            return value(text, "mkwrite_wait_seconds_total", **of_place, reason=reason.value)

        with exporter() as (_, address):
            before = get(address)
            assert value(before, "mkwrite_oldest_inflight_seconds") == 0
            assert not re.search(f"^mkwrite_wait_seconds_total{{.*{place}.*$", before, re.MULTILINE)
            BPF_STATS.write_text("1")
            with frozen(place):
                waiter.store(0)
                assert eventually(lambda: value(get(address), "mkwrite_inflight") == 1)
                began, first, earliest = _oldest(address)
                waiter.blocked()
                # Who waits is looked for among the tasks once a call seems to last for a second (bpf/in_flight.c).
                assert eventually(lambda: value(get(address), "mkwrite_oldest_inflight_seconds") > 1)
                latest, second, ended = _oldest(address)
            assert latest - earliest <= second - first <= ended - began
            took = waiter.took() / 1e9
            assert 0 < first < second < took
            after = get(address)
            BPF_STATS.write_text("0")
        # Of all that is loaded, those that follow waits and look for who waits among them.
        timed = {"page_mkwrite_entry", "page_mkwrite_return", "wait_entry", "wait_return", "in_flight"}
        assert timed <= set(re.findall(r'^mkwrite_bpf_runs_total{program="(\w+)"}', after, re.MULTILINE))
    assert (value(after, "mkwrite_inflight"), value(after, "mkwrite_oldest_inflight_seconds")) == (0, 0)
    freeze = waited(after, Wait.FREEZE)
    print(f"stored for {took:.3f} s, frozen {freeze:.3f} s; in flight for {first:.3f} s, then {second:.3f} s")
    assert waiter.slept / 1e9 <= freeze
    assert sum(waited(after, reason) for reason in Wait) <= took
    run("umount", str(place))


def _oldest(address: str) -> tuple[float, float, float]:
    """How long the oldest call in flight has taken, in s, with the moments before and after it was asked for."""
    began = time.monotonic()
    return began, value(get(address), "mkwrite_oldest_inflight_seconds"), time.monotonic()


@pytest.mark.nightly
@pytest.mark.usefixtures("clean_kernel")
def test_a_real_prometheus_server_gets_every_panel_and_fires_the_alert_on_a_refusal(tmp_path: Path) -> None:
    place = small("export")
    # The rules as they are, but looked at each second: their windows of minutes take in what is scraped however late.
    rules = [tmp_path / name for name in ("rules.yml", "alerts.yml")]
    for copy in rules:
        copy.write_text((DASHBOARDS / copy.name).read_text().replace("interval: 30s", "interval: 1s"))
    with (
        exporter("--risk") as (process, address),
        Prometheus(tmp_path, {"mkwrite": address}, rules, SCRAPE_S) as server,
    ):
        selector = f'{{mountpoint="{place}"}}'
        assert eventually(lambda: server.value(f"sum(mkwrite_failures_total{selector})") == 0)
        assert server.alerts() == set()
        workload("first-write", place / "first", FIRST)
        fill_and_die(place)
        writable = f'sum(mkwrite_calls_total{{mountpoint="{place}",outcome="writable"}})'
        assert eventually(lambda: server.value(writable) == FIRST)
        assert eventually(lambda: server.alerts() == {"MkwriteWriteRefused"})
        full = f'{{mountpoint="{place}",class="refused",errno="ENOSPC"}}'
        assert server.value(f"sum(mkwrite_failures_total{full})") == 1
        assert "ENOSPC" in get(address, "/") and "victim" in get(address, "/")
        (told,) = json.loads(get(address, "/api/failures"))["failures"]
        assert (told["first"]["errno"], told["first"]["errno_from"] != "", told["total"]) == ("ENOSPC", True, 1)
        assert told["first"]["host"]["space"]["free"] == 0 and told["first"]["remedy"]

        def empty() -> set[str]:
            return {query.panel for query in queries() if not server.query(query.expanded("10m", "10m"))}

        assert eventually(lambda: not empty()), empty()
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0
    run("umount", str(place))
