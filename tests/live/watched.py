"""What a call waited for, against what the process that stored measured."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.live.guest import HANDLERS
from tests.live.slow_disk import Waiter
from tracer.breakdown import parts_of
from tracer.model import CallEvent, Snapshot
from tracer.session import Session
from tracer.wait import Wait

#: For tests whose numbers hang on how a busy machine shares its time out: a virtual CPU that is stopped at the wrong
#: moment is in what they measure. They measure again, and tests/live/run says so. Never for a file that only counts.
TIMED = pytest.mark.flaky(reruns=2)
#: What the parts of a call may differ by from the whole: 1 %, or so much.
SLACK_NS = 20_000
_HANDLERS = {**HANDLERS, "fuse": "fuse_page_mkwrite", "nfs": "nfs_vm_page_mkwrite", "nfs4": "nfs_vm_page_mkwrite"}


@dataclass
class Watched:
    """A session that tells waits apart, and the calls that took 100 ms."""

    session: Session

    def counted(self, doing: Callable[[], None]) -> tuple[Snapshot, list[CallEvent]]:
        """What the session counted while ``doing``, and its slow calls."""
        before = self.session.snapshot()
        self.session.events()
        doing()
        after = self.session.snapshot().since(before)
        return after, self.session.events()

    def waited(self, waiter: Waiter, doing: Callable[[], None]) -> tuple[Snapshot, list[CallEvent], int]:
        """The same, with the stores that it began, and how long they took."""
        took = 0

        def stored() -> None:
            nonlocal took
            doing()
            took = waiter.took()

        return *self.counted(stored), took

    def waits_for(self, reason: Wait, waiter: Waiter, fstype: str, place: Path, doing: Callable[[], None]) -> CallEvent:
        """One store waits while ``doing``, for ``reason`` alone, as long as it takes; the parts sum to the whole."""
        counted, events, took = self.waited(waiter, doing)
        waits = {s: t for s, t in counted.waits.items() if t.count and s.mountpoint == str(place)}
        (event,) = (event for event in events if event.pid == waiter.pid)
        tell(reason, event.fstype, parts_of(event), took, waiter, self.session)
        whole = sum(time.ns for time in waits.values())
        (found,) = (time for series, time in waits.items() if series.reason is reason)
        assert found.count == 1
        assert abs(found.ns - took) < took / 10
        assert whole - found.ns < took / 20
        assert {(series.fstype, series.handler) for series in waits} == {(fstype, _HANDLERS[fstype])}
        assert abs(found.ns - event.waits[reason]) <= 1
        assert sum(event.waits.values()) <= event.latency_ns <= took
        sums_up(event, took, waiter)
        calls = sum(h.sum_ns for s, h in counted.calls.items() if s.mountpoint == str(place))
        # What is throttled comes after its call.
        assert sum(time.ns for series, time in waits.items() if series.reason is not Wait.THROTTLE) <= calls
        return event


def sums_up(event: CallEvent, took: int, waiter: Waiter) -> None:
    """What was waited for, and what the scheduler has as time on the CPU or ready to run, are the whole of a store.

    Of the time ready to run, that after a sleep belongs to what was slept for. Reclaim, and btrfs where it makes space,
    work for the call that waits, and are told as such where they do so on the CPU, too.
    """
    rest = took - sum(event.waits.values()) - waiter.busy
    slack = max(took // 100, SLACK_NS)
    assert rest <= waiter.ready + slack
    assert rest >= -slack or not event.waits.keys().isdisjoint({Wait.RECLAIM, Wait.SPACE})


def tell(reason: Wait, fstype: str, parts: Mapping[str, int], took: int, waiter: Waiter, session: Session) -> None:
    """Print a row of the table in docs/commands/waits.md."""
    row = {
        "test": os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition("[")[0],
        "kernel": os.uname().release,
        "backend": str(session.backend),
        "fstype": fstype,
        "reason": reason.value,
        "took": took,
        "busy": waiter.busy,
        "ready": waiter.ready,
        "parts": parts,
    }
    print(f"WAITED {json.dumps(row)}", flush=True)
