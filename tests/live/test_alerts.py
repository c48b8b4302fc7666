"""Alerts against a real Prometheus server: each fires when what it is about is done to the host, and resolves.

Those on refusals, stuck and slow calls, waits, and a dead exporter: ``test_export``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.guest import run, workload
from tests.live.refusals import SIZE, VICTIM, BadDisk
from tests.live.test_export import exporter, get, hasty, small
from tests.observability.panels import DASHBOARDS
from tests.observability.prometheus import Prometheus, eventually

#: Two exporters are asked on two emulated CPUs: a scrape may take more than a second.
SCRAPE_S, WINDOW_S = 4, 25


@contextmanager
def node_exporter() -> Iterator[str]:
    """The one whose metrics tell how full filesystems are; its host:port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
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

    def fires(self, alert: str, seconds: float = 240) -> None:
        """Wait until it does."""
        eventually(lambda: alert in self.server.alerts(), seconds, f"{alert} is not among {self.server.alerts()}")
        print(f"fires: {alert}", flush=True)

    def resolves(self, alert: str, seconds: float = 240) -> None:
        """Wait until it does not any more."""
        eventually(lambda: alert not in self.server.alerts(), seconds, f"{alert} still fires")
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
        yield
        self.fires(alert)
        self.resolves(alert)


def quicker(rules: Path, directory: Path) -> Path:
    """As ``hasty``, for less frequent scrapes; and a disk is looked at for less than an hour."""
    copy = hasty(rules, directory)
    text = copy.read_text().replace("[10s]", f"[{WINDOW_S}s]").replace("offset 10s", f"offset {WINDOW_S}s")
    copy.write_text(text.replace("[1h]", f"[{2 * WINDOW_S}s]"))
    return copy


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """What is watched."""
    directory = tmp_path_factory.mktemp("alerts")
    subprocess.run(["modprobe", "-r", "f2fs"], check=False)
    rules = [quicker(DASHBOARDS / name, directory) for name in ("rules.yml", "alerts.yml")]
    with (
        exporter("--risk") as (_, risk),
        exporter("--max-series", "1") as (spare, address),
        node_exporter() as node,
        Prometheus(directory, {"mkwrite": risk, "spare": address, "node": node}, rules, SCRAPE_S) as server,
    ):
        eventually(lambda: len(server.query("max_over_time(up[10m]) == 1")) == 3, 240, str(server.query("up")))
        yield Host(server, spare, address)


def seen(host: Host, place: Path) -> None:
    """Wait until its counters of failures are known, which are 0."""
    expression = f'sum(mkwrite_failures_total{{job="mkwrite",mountpoint="{place}"}})'
    eventually(lambda: host.server.value(expression) == 0, 60, f"{place} is not known")


@pytest.mark.slow
def test_a_file_that_was_truncated(host: Host) -> None:
    place = small("truncated")
    seen(host, place)
    with host.provoked("MkwriteFileTruncated"):
        done = subprocess.run([VICTIM, "shrunk", str(place / "file"), str(SIZE), "8193", "40000"], check=False)
        assert done.returncode == -signal.SIGBUS
    run("umount", str(place))


@pytest.mark.slow
def test_a_disk_that_cannot_be_read(host: Host) -> None:
    disk = BadDisk("unreadable")
    seen(host, disk.place)
    with host.provoked("MkwritePageUnreadable"):
        disk.fail()
        done = subprocess.run([VICTIM, "load", str(disk.file), str(SIZE), "8192"], check=False)
        assert done.returncode == -signal.SIGBUS


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
