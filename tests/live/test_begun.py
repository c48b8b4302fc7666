"""Sessions that open while others write: what began before the hooks were on is no loss, and all else is counted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.live.guest import (
    NO_LOSS,
    WORKLOAD,
    Backend,
    FaultPath,
    Filters,
    Loss,
    Options,
    Steps,
    Truth,
    calls,
    dirty_limits,
    eventually,
    frozen,
    lost,
    truth,
    workload,
)
from tests.live.slow_disk import WAITER, Disk
from tracer.kernel.btf import Btf
from tracer.kernel.preemption import preemptible
from tracer.model.snapshot import Snapshot
from tracer.model.waits import Wait
from tracer.probes.tracer import HookPoint, Tracer
from tracer.session import Session

#: Threads of one process, and processes that store to many pages each.
THREADS, WRITERS = 11, 5
TASKS = THREADS + WRITERS
NICE = ("nice", "-n", "19")
#: Copies pages of memory on write for as long as it is let.
FORKS = """
import os
kept = bytearray(64 << 12)
while True:
    pid = os.fork()
    kept[::4096] = kept[1::4096]
    pid or os._exit(0)
    os.waitpid(pid, 0)
"""


@pytest.mark.newest
def test_calls_that_slept_when_the_hooks_came(
    exact: Backend | None, mounts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each returns without an entry, from do_page_mkwrite and from do_wp_page; what comes after is counted exactly.

    Some begin before all hooks, others when only returns are hooked.
    """
    place, attach = mounts["ext4"], Tracer.attach
    with truth("do_page_mkwrite") as entered:
        earliest = entered.hits()
        before, between = (Steps("blocked", place / f"{name}-{exact}", 97, THREADS) for name in ("before", "between"))

        def block(steps: Steps) -> None:
            earlier = entered.hits()
            steps.go()
            assert eventually(lambda: entered.hits() - earlier == THREADS)

        def attached(tracer: Tracer, hook: HookPoint, types: Btf | None = None) -> None:
            if hook.program == "page_mkwrite_entry":
                block(between)
            attach(tracer, hook, types)

        monkeypatch.setattr(Tracer, "attach", attached)
        before.reach()
        between.reach()
        with frozen(place):
            block(before)
            session = Session(Options(exact, filters=Filters(fs=("ext4",)), waits=True))
        with session:
            before.end()
            between.end()
            workload("first-write", place / f"after-{exact}", 41)
            final = session.finish()
        entered_since = entered.hits() - earliest - 2 * THREADS
    assert calls(final, path=FaultPath.FIRST_WRITE) == 41
    # A page whose entry had changed while its call slept is asked for once more.
    assert calls(final) == entered_since
    assert lost(final) == NO_LOSS


@pytest.mark.nightly
def test_sessions_that_come_and_go_while_writers_are_throttled(backend: Backend) -> None:
    throttled = 0
    with Disk("xfs", 320, delay_ms=70, name=f"begun-{backend}") as disk, _load(disk.place):
        for _ in range(10):
            with Session(Options(backend, waits=True, failures=True)) as session, truth("do_page_mkwrite") as entered:
                earliest = entered.hits()
                first = session.snapshot()
                earlier = entered.hits()
                assert eventually(partial(_entered, entered, earlier + 3 * TASKS))
                later = entered.hits()
                last = session.snapshot()
                latest = entered.hits()
                final = session.finish()
            _nothing_lost(final)
            throttled += sum(time.count for series, time in final.waits.items() if series.reason is Wait.THROTTLE)
            missed = final.lost[Loss.MISSED_PROBE]
            # Entries are hit when calls begin, which are counted when they end: each task is in one at most.
            assert later - earlier - TASKS - missed <= calls(last) - calls(first) <= latest - earliest + TASKS
    assert throttled > 0


def _entered(entered: Truth, number: int) -> bool:
    return entered.hits() >= number


def _nothing_lost(final: Snapshot) -> None:
    """Where a session may be preempted in bpf(2), the kernel skips kprobe programs on that CPU, and says how many."""
    missed = lost(final)[Loss.MISSED_PROBE]
    assert preemptible() or missed == 0
    follow = {Loss.MISSED_PROBE: missed}
    if missed:
        follow |= {kind: final.lost[kind] for kind in (Loss.UNMATCHED_ENTRY, Loss.UNMATCHED_RETURN)}
        assert sum(follow.values()) <= 3 * missed
    assert lost(final) == {**NO_LOSS, **follow}


@contextmanager
def _load(place: Path) -> Iterator[None]:
    """Writers that are throttled nearly always, faults of many threads, and copies on write; the session goes first."""
    storm = [WORKLOAD, "storm", str(place / "storm"), "3600", str(THREADS)]
    running = [_writer(place / f"{number}") for number in range(WRITERS)]  # while writing is still fast
    try:
        with dirty_limits(dirty_background_bytes=4 * 4096, dirty_bytes=16 * 4096):
            for writer in running:
                assert writer.stdin is not None
                writer.stdin.write(b"0 499\n" * 700)
                writer.stdin.flush()
            running += [subprocess.Popen([*NICE, *line]) for line in (storm, [sys.executable, "-I", "-c", FORKS])]
            yield
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()


def _writer(path: Path) -> subprocess.Popen[bytes]:
    """Stores to its pages as often as it is told; what it prints of that finds room in the pipe."""
    writer = subprocess.Popen([*NICE, WAITER, str(path), "499"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"mapped\n"
    return writer
