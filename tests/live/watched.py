"""What a call waited for, against what the process that stored measured."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.live.guest import HANDLERS
from tests.live.slow_disk import Waiter
from tracer.latency.breakdown import CPU, parts_of
from tracer.model.calls import CallEvent
from tracer.model.snapshot import Snapshot
from tracer.model.waits import Wait
from tracer.session import Session

#: Slower calls are told one by one.
SLOWER_NS = 100_000_000
#: What two clocks of a kernel may differ by: 1 % of a time, or so much.
SLACK_NS = 20_000
_HANDLERS = {**HANDLERS, "fuse": "fuse_page_mkwrite", "nfs": "nfs_vm_page_mkwrite", "nfs4": "nfs_vm_page_mkwrite"}


@dataclass
class Watched:
    """A session that tells waits apart, and the calls that took ``SLOWER_NS``."""

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
        """One store waits while ``doing``, for ``reason``, at least as long as it was seen asleep.

        A busy machine makes each of these times longer, never shorter, and each is compared with one that it is part
        of, or that is part of it.
        """
        counted, events, took = self.waited(waiter, doing)
        waits = {s: t for s, t in counted.waits.items() if t.count and s.mountpoint == str(place)}
        (event,) = (event for event in events if event.pid == waiter.pid and reason in event.waits)
        tell(reason, event.fstype, parts_of(event), took, waiter, self.session)
        assert 0 < waiter.slept <= event.waits[reason]
        assert sum(event.waits.values()) <= event.latency_ns <= took
        on_cpu(parts_of(event)[CPU], waiter)
        (found,) = (time for series, time in waits.items() if series.reason is reason)
        assert (found.count, found.max_ns) == (1, found.ns)
        assert abs(found.ns - event.waits[reason]) <= 1
        assert {(series.fstype, series.handler) for series in waits} == {(fstype, _HANDLERS[fstype])}
        calls = sum(h.sum_ns for s, h in counted.calls.items() if s.mountpoint == str(place))
        # What is throttled comes after its call.
        assert sum(time.ns for series, time in waits.items() if series.reason is not Wait.THROTTLE) <= calls
        return event


def on_cpu(ns: int, waiter: Waiter) -> None:
    """What is told to be no wait, the scheduler knows as time on the CPU or ready to run: no sleep is among it."""
    had = waiter.busy + waiter.ready
    assert 0 <= ns <= had + max(had // 100, SLACK_NS)


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
