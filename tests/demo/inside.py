"""The demonstration's part in the guest: filesystems, a workload of known size, and one session that shows it all."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.live import Live

from tracer.export.application import exposition
from tracer.export.collector import MkwriteCollector
from tracer.failure import Failure
from tracer.model import Options, Snapshot
from tracer.session import Session
from tracer.ui.count import CountView
from tracer.ui.hist import HistogramsView
from tracer.ui.top import TopView
from tracer.ui.trace import TraceLines

ROOT = Path("/tmp/demo")
#: Image size in MiB: the least that each mkfs takes.
FILESYSTEMS = {"ext4": 64, "xfs": 300, "btrfs": 128}
#: Regions written for the first time, and of those written again after they were cleaned and read. Odd primes, so
#: that no number comes out right by accident.
FIRST, AGAIN = 211, 97
#: Far enough apart that no large folio covers two.
STRIDE = 1 << 17
ROUNDS = 3


def make_filesystems(console: Console) -> None:
    """Loop images on tmpfs, mounted below ``ROOT``."""
    for fstype, size in FILESYSTEMS.items():
        place = ROOT / fstype
        place.mkdir(parents=True)
        image = ROOT / f"{fstype}.img"
        with image.open("wb") as stream:
            stream.truncate(size << 20)
        for command in (
            ["modprobe", "-q", "loop"],
            ["modprobe", "-q", fstype],
            [f"mkfs.{fstype}", "-q", str(image)],
            ["mount", "-o", "loop", str(image), str(place)],
        ):
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        console.print(f"    {fstype} at {place}")


def write_pages(path: Path) -> None:
    """``FIRST`` first writes, then ``AGAIN`` writes to pages that are mapped read-only: a call of page_mkwrite each."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.ftruncate(descriptor, FIRST * STRIDE)
    with mmap.mmap(descriptor, FIRST * STRIDE) as mapping:
        for index in range(FIRST):
            mapping[index * STRIDE] = 1
        mapping.flush()
        os.fdatasync(descriptor)
    # A new mapping, so that every page is read before it is written.
    with mmap.mmap(descriptor, FIRST * STRIDE) as mapping:
        for index in range(AGAIN):
            mapping[index * STRIDE + 1] = mapping[index * STRIDE]
    os.close(descriptor)


def workload() -> None:
    """``ROUNDS`` rounds on each filesystem, at a pace at which one can watch."""
    for number in range(ROUNDS):
        for fstype in FILESYSTEMS:
            write_pages(ROOT / fstype / f"data{number}")
            time.sleep(0.5)


def fill_and_die() -> None:
    """Leave no free block on ext4, then write into a hole: a database with a sparse file on a full disk."""
    Path("/proc/self/comm").write_text("database")
    filler = os.open(ROOT / "ext4" / "filler", os.O_RDWR | os.O_CREAT, 0o600)
    for size in (1 << 20, 4096):
        try:
            while True:
                os.write(filler, bytes(size))
        except OSError:
            continue
    ledger = os.open(ROOT / "ext4" / "ledger.db", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(ledger, 1 << 24)
    mapping = mmap.mmap(ledger, 1 << 24)
    for index in range(0, 1 << 24, 4096):
        mapping[index] = 1


def watch(session: Session, console: Console, live_terminal: bool) -> list[Failure]:
    """Run the workload and show the table meanwhile."""
    tasks = [multiprocessing.Process(target=workload, name="writer")]
    victim = multiprocessing.Process(target=fill_and_die, name="database")
    failures: list[Failure] = []
    before = start = session.snapshot()
    tasks[0].start()
    view = TopView(before, before, full_screen=live_terminal)
    with Live(view, console=console, screen=live_terminal, auto_refresh=False) as live:
        while any(task.is_alive() for task in tasks):
            failures += session.failures(timeout_s=1.0 if live_terminal else 3.0)
            now = session.snapshot()
            counts = now.since(before)
            view = TopView(counts, now, failures, full_screen=live_terminal, hint="a guest writes to mapped files")
            if live_terminal:
                live.update(view, refresh=True)
            elif counts.calls:
                console.print(view)
                console.print()
            before = now
            if victim.pid is None and not tasks[0].is_alive():
                check(session.snapshot())
                tasks.append(victim)
                victim.start()
        failures += session.failures()
        if live_terminal:
            live.update(TopView(session.snapshot().since(start), before, failures, full_screen=True), refresh=True)
            time.sleep(2)
    assert victim.exitcode == -signal.SIGBUS, f"the victim ended with {victim.exitcode}"
    return failures


def check(counted: Snapshot) -> None:
    """The kernel's counts are the workload's, to the last call."""
    for fstype in FILESYSTEMS:
        for path, expected in (("first_write", FIRST * ROUNDS), ("write_protect", AGAIN * ROUNDS)):
            found = sum(
                histogram.count
                for series, histogram in counted.calls.items()
                if series.mountpoint == str(ROOT / fstype) and series.path == path
            )
            assert found == expected, f"{fstype} {path}: {found} calls instead of {expected}"


def main() -> int:
    """Set up, trace, show."""
    # Multiprocessing must not fork this process with its mapped rings.
    multiprocessing.set_start_method("spawn")
    live_terminal = bool(os.environ.get("DEMO_TERMINAL"))
    console = Console(force_terminal=live_terminal or None, width=int(os.environ.get("COLUMNS", "100")))
    console.print(f"[bold]4/4[/] running on Linux {os.uname().release}; filesystems:")
    make_filesystems(console)
    console.print(f"    then {ROUNDS} rounds of {FIRST} first writes and {AGAIN} write-protect faults on each")
    with Session(Options()) as session:
        failures = watch(session, console, live_terminal)
        final = session.finish()
    console.rule("latency of page_mkwrite")
    console.print(HistogramsView(final))
    console.rule("exact counts")
    console.print(CountView(final))
    console.rule("the failure: a process died of SIGBUS on a full disk")
    lines = TraceLines(console.width)
    console.print(lines.header())
    for event in failures:
        console.print(lines.line(event))
    console.rule("as Prometheus would scrape it")
    collector = MkwriteCollector(Finished(final), version="demo")
    shown = [
        line
        for line in exposition(collector).decode().splitlines()
        if "_bucket" not in line and not line.startswith("#")
    ]
    console.print("\n".join(shown), highlight=False, markup=False, soft_wrap=True)
    return 0


class Finished:
    """A session that is over, for the collector."""

    def __init__(self, final: Snapshot) -> None:
        self._final = final

    def snapshot(self) -> Snapshot:
        """Counts."""
        return self._final


if __name__ == "__main__":
    sys.exit(main())
