"""Calls that wait: raced, many at once, and a page that is gone meanwhile. A frozen filesystem keeps them waiting."""

from __future__ import annotations

import mmap
from contextlib import suppress
from pathlib import Path

import pytest

from tests.live.guest import (
    NO_LOSS,
    Backend,
    FaultPath,
    Filters,
    Options,
    Outcome,
    Steps,
    calls,
    eventually,
    frozen,
    lost,
    wp_skipped,
)
from tracer.model.calls import WpOutcome
from tracer.session import Session

MADV_HWPOISON = 100

pytestmark = [pytest.mark.newest, pytest.mark.usefixtures("clean_kernel")]


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_of_threads_that_ask_for_one_page_all_but_one_have_raced(
    exact: Backend | None, mounts: dict[str, Path], fstype: str
) -> None:
    threads = 23
    with Session(Options(backend=exact, filters=Filters(fs=(fstype,)), failures=False)) as session:
        steps = Steps("blocked", mounts[fstype] / "one", 1, threads)
        steps.reach()
        before = session.snapshot()
        with frozen(mounts[fstype]):
            steps.go()
            assert eventually(lambda: session.snapshot().in_flight == threads)
        steps.end()
        final = session.finish().since(before)
    assert calls(final, path=FaultPath.WRITE_PROTECT, outcome=Outcome.WRITABLE) == 1
    assert calls(final, path=FaultPath.WRITE_PROTECT, outcome=Outcome.RACED) == threads - 1
    assert calls(final) == threads
    assert threads - wp_skipped(final) <= final.wp_faults[WpOutcome.SHARED] <= threads
    assert lost(final) == NO_LOSS


def test_more_sleeping_calls_than_the_kernel_would_track_by_default(
    exact: Backend | None, mounts: dict[str, Path]
) -> None:
    # A return probe's pool has ten places on this many CPUs unless asked for more. Of so many, some share a slot; with
    # 512 pages, a huge page might map them all.
    threads = 401
    with Session(Options(backend=exact, filters=Filters(fs=("ext4",)), slower_ns=1, failures=False)) as session:
        steps = Steps("blocked", mounts["ext4"] / "many", threads, threads)
        steps.reach()
        before = session.snapshot()
        with frozen(mounts["ext4"]):
            steps.go()
            assert eventually(lambda: session.snapshot().in_flight == threads)
            session.events()
            first = session.snapshot()
            assert eventually(lambda: session.snapshot().monotonic_ns - first.monotonic_ns > 500_000_000)
        steps.end()
        final = session.finish()
        slow = [event for event in session.events() if event.latency_ns > 500_000_000]
    delta = final.since(before)
    # A kernel that looks for pages to reclaim meanwhile clears the accessed bit of an entry. Then the entry is not the
    # one that the fault had seen, and the fault is taken once more.
    raced = calls(delta, path=FaultPath.WRITE_PROTECT, outcome=Outcome.RACED)
    assert calls(delta, path=FaultPath.WRITE_PROTECT, outcome=Outcome.WRITABLE) == calls(delta) - raced == threads
    faults = threads + raced
    assert faults - wp_skipped(final) <= delta.wp_faults[WpOutcome.SHARED] <= faults
    assert sorted(event.offset for event in slow) == [page * mmap.PAGESIZE for page in range(threads)]
    assert {event.pid for event in slow} == {steps.pid}
    assert len({event.tid for event in slow}) == threads
    assert lost(final) == NO_LOSS


def test_a_page_that_is_gone_when_the_handler_gets_to_it(exact: Backend | None, mounts: dict[str, Path]) -> None:
    path = mounts["ext4"] / "poisoned"
    with Session(Options(backend=exact, filters=Filters(fs=("ext4",)), failures=False)) as session:
        steps = Steps("blocked", path, 1, 1)
        steps.reach()
        before = session.snapshot()
        with frozen(mounts["ext4"]):
            steps.go()
            assert eventually(lambda: session.snapshot().in_flight == 1)
            with path.open("rb") as stream, mmap.mmap(stream.fileno(), mmap.PAGESIZE, prot=mmap.PROT_READ) as mapped:
                assert mapped[:1] == b"x"
                # The kernel drops the page from the page cache, and complains that the waiting fault still holds it.
                with suppress(OSError):
                    mapped.madvise(MADV_HWPOISON)
        steps.end()
        final = session.finish().since(before)
    assert calls(final, path=FaultPath.WRITE_PROTECT, outcome=Outcome.NOPAGE) == 1
    # The fault is taken again, and brings a fresh page in.
    assert calls(final, path=FaultPath.FIRST_WRITE, outcome=Outcome.WRITABLE) == 1
    assert calls(final) == 2
    assert lost(final) == NO_LOSS
