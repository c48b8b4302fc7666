"""The demonstration's part in the guest: filesystems, a workload of known size, and one session that shows it all."""

from __future__ import annotations

import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.live import Live

from tracer.errors import MkwriteError
from tracer.export.http.answers import exposition
from tracer.export.prometheus.collector import MkwriteCollector
from tracer.model.failures import Failure
from tracer.model.options import Options
from tracer.model.snapshot import Snapshot
from tracer.session import Session
from tracer.ui.count import CountView
from tracer.ui.hist import HistogramsView
from tracer.ui.top import TopView
from tracer.ui.trace import TraceLines

ROOT: Final = Path("/demo")
#: Image size in MiB: the least that each mkfs takes.
FILESYSTEMS: Final = {"ext4": 64, "xfs": 300, "btrfs": 128}
#: Regions written for the first time, and of those written again after they were cleaned and read. Odd primes, so
#: that no number comes out right by accident.
FIRST: Final = 211
AGAIN: Final = 97
#: Far enough apart that no large folio covers two.
STRIDE: Final = 1 << 17
ROUNDS: Final = 3
VICTIM: Final = "database"
#: Short, so that it is told whole in 80 columns.
LEDGER: Final = ROOT / "ext4" / "db"
#: The metrics that say what happened; the others are about latencies and about the tracer.
METRICS: Final = ("mkwrite_calls_total", "mkwrite_dirtied_bytes_total", "mkwrite_failures_total")


class DemoError(Exception):
    """The demonstration does not show what it should; the message says what is wrong."""


def run(*command: str) -> None:
    """Run a command quietly. Raises DemoError with what it said if it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DemoError(f"{' '.join(command)} failed: {done.stderr.strip() or done.stdout.strip()}")


def make_filesystems(console: Console) -> None:
    """Loop images on tmpfs, mounted below ``ROOT``."""
    for fstype, size in FILESYSTEMS.items():
        place = ROOT / fstype
        place.mkdir(parents=True)
        image = Path("/tmp") / f"{fstype}.img"
        with image.open("wb") as stream:
            stream.truncate(size << 20)
        run("modprobe", "-a", "loop", fstype)
        run(f"mkfs.{fstype}", "-q", str(image))
        run("mount", "-o", "loop", str(image), str(place))
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
    Path("/proc/self/comm").write_text(VICTIM)
    filler = os.open(LEDGER.with_name("filler"), os.O_RDWR | os.O_CREAT, 0o600)
    for size in (1 << 20, 4096):
        try:
            while True:
                os.write(filler, bytes(size))
        except OSError:
            continue
    ledger = os.open(LEDGER, os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(ledger, 1 << 24)
    mapping = mmap.mmap(ledger, 1 << 24)
    for index in range(0, 1 << 24, 4096):
        mapping[index] = 1


def watch(session: Session, console: Console, live_terminal: bool) -> list[Failure]:
    """Run the workload and show the table meanwhile; the failures that came."""
    tasks = [multiprocessing.Process(target=workload, name="writer")]
    victim = multiprocessing.Process(target=fill_and_die, name=VICTIM)
    failures: list[Failure] = []
    before = start = session.snapshot()
    tasks[0].start()
    screen = Live(console=console, screen=True, auto_refresh=False) if live_terminal else nullcontext()
    with screen as live:
        while any(task.is_alive() for task in tasks):
            failures += session.failures(timeout_s=1.0 if live_terminal else 3.0)
            now = session.snapshot()
            counts = now.since(before)
            view = TopView(counts, now, failures, full_screen=live_terminal, hint="a guest writes to mapped files")
            if live:
                live.update(view, refresh=True)
            elif counts.calls:
                console.print(view)
                console.print()
            before = now
            if victim.pid is None and not tasks[0].is_alive():
                tasks.append(victim)
                victim.start()
        failures += session.failures()
        if live:
            live.update(TopView(session.snapshot().since(start), before, failures, full_screen=True), refresh=True)
            time.sleep(2)
    if victim.exitcode != -signal.SIGBUS:
        raise DemoError(f"The victim ended with {victim.exitcode} instead of SIGBUS.")
    return failures


def check(counted: Snapshot, failures: list[Failure], victim: str, file: str) -> None:
    """Raise DemoError unless the kernel's counts are the workload's, to the last call, and the failure was told."""
    expected = {(fstype, "first_write", "writable"): FIRST * ROUNDS for fstype in FILESYSTEMS}
    expected |= {(fstype, "write_protect", "writable"): AGAIN * ROUNDS for fstype in FILESYSTEMS}
    expected["ext4", "first_write", "sigbus"] = 1
    found: Counter[tuple[str, str, str]] = Counter()
    for series, histogram in counted.calls.items():
        if Path(series.mountpoint).parent == ROOT:
            found[series.fstype, series.path.value, series.outcome.value] += histogram.count
    if found != expected:
        raise DemoError(f"Counted were {dict(found)}, made were {expected}.")
    told = [(failure.comm, failure.file, failure.errno_name) for failure in failures]
    if told != [(victim, file, "ENOSPC")]:
        raise DemoError(f"Instead of the one failure that there was, these were told: {told}.")


def show_metrics(console: Console, final: Snapshot) -> None:
    """Print the samples that are not 0 as Prometheus would scrape them, those too long for a line broken at commas."""
    for line in exposition(MkwriteCollector(Finished(final), version="demo")).decode().splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith(METRICS) and float(value):
            for part in textwrap.wrap(line.replace(",", ", "), console.width, subsequent_indent="    "):
                console.print(part.replace(", ", ","), highlight=False, markup=False)


def main() -> int:
    """Set up, trace, show."""
    # Multiprocessing must not fork this process with its mapped rings.
    multiprocessing.set_start_method("spawn")
    live_terminal = bool(os.environ.get("DEMO_TERMINAL"))
    console = Console(force_terminal=live_terminal or None, width=int(os.environ.get("COLUMNS", "100")))
    try:
        show(console, live_terminal)
    except (DemoError, MkwriteError) as error:
        console.print(str(error), style="red", markup=False)
        return 1
    return 0


def show(console: Console, live_terminal: bool) -> None:
    """Everything, in the order in which it happens."""
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
    console.rule("as Prometheus would scrape it, what is not 0")
    show_metrics(console, final)
    check(final, failures, VICTIM, str(LEDGER))


class Finished:
    """A session that is over, for the collector."""

    def __init__(self, final: Snapshot) -> None:
        self._final = final

    def snapshot(self) -> Snapshot:
        """Counts."""
        return self._final


if __name__ == "__main__":
    sys.exit(main())
