"""The tracer's side of the record: counts and failures as they come, explained at once, and handed to the writer."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tracer.diagnosis.explainer import Explainer, Notified
from tracer.export.json.failures import notified_dict, repeated_dict
from tracer.mappings.risk import Assessment
from tracer.model.calls import CallEvent
from tracer.model.failures import Event, Failure
from tracer.model.snapshot import Snapshot
from tracer.record.feed import Feed
from tracer.record.minutes import Counted
from tracer.record.process import Writer
from tracer.record.reports import failure_frame
from tracer.record.space import risks
from tracer.record.watch import Watch

if TYPE_CHECKING:
    from tracer.session import Session

_log = logging.getLogger(__name__)

_MINUTE_NS: Final = 60_000_000_000
_DAY_NS: Final = 1440 * _MINUTE_NS
#: How often failures that are only counted are told, and freezes looked at.
_LOOK_NS: Final = 10_000_000_000
#: What the wall clock may drift by between two looks, slewed as fast as it may be (500 ppm); more is a step.
_STEP_NS: Final = 50_000_000


class Recorder:
    """Keeps a record while it is entered; a ``SnapshotSource`` that sees each snapshot that passes through it."""

    def __init__(
        self, session: Session, writer: Writer, version: str, risk: Callable[[], Iterable[Assessment]] = tuple
    ) -> None:
        """``risk`` returns what the last look at mapped files found."""
        self._session = session
        self._risk = risk
        self.writer = writer
        first = session.snapshot()
        self._counted = Counted(first)
        self.feed = Feed(writer.fd)
        who = {
            "mkwrite": version,
            "kernel": os.uname().release,
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "host": platform.node(),
            "backend": str(session.backend),
        }
        self.feed.event({"kind": "first", **who})
        self.feed.event({"kind": "start", "time_ns": time.time_ns(), **who})
        self._minute = time.time_ns() // _MINUTE_NS
        self._day = 0
        self._due_ns = 0
        self._set_ns = _set_ns()

    @cached_property
    def _explainer(self) -> Explainer:
        """Made when it is wanted: the process that opens files for it has the rights of that moment."""
        return Explainer(self._session.has_ended, every=True, losses=self._session.file_losses)

    @cached_property
    def _watch(self) -> Watch:
        """Made likewise."""
        return Watch(self._session)

    def snapshot(self) -> Snapshot:
        """Return the session's snapshot, seen."""
        snapshot = self._session.snapshot()
        self._counted.see(snapshot)
        return snapshot

    def beat(self, events: Iterable[Event]) -> None:
        """Take in events, and do what is due."""
        self._take_in(events)
        self._tell(self._watch.mounts())
        now_ns = time.monotonic_ns()
        step_ns = _set_ns() - self._set_ns
        if abs(step_ns) > _STEP_NS:
            self._set(step_ns)
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + _LOOK_NS
            self._set_ns = _set_ns()
            self._repeat()
            self._tell(self._watch.freezes())
        minute = time.time_ns() // _MINUTE_NS
        if minute != self._minute:
            self.minute()
        self.feed.pump()
        self.writer.listen(self.feed)

    def minute(self, step_ns: int = 0) -> None:
        """Record what was counted since this was last done; ``step_ns`` as ``Counted.take`` has it."""
        now_ns = time.time_ns()
        self._minute = now_ns // _MINUTE_NS
        self.snapshot()
        self._tell(self._watch.minute())
        if now_ns // _DAY_NS != self._day:
            self._day = now_ns // _DAY_NS
            self.feed.event(self._watch.mounted())
        minute = self._counted.take(step_ns)
        self.feed.minute(replace(minute, space=self._watch.space(), risk=risks(self._risk())))

    def end(self, final: Snapshot, events: Iterable[Event]) -> None:
        """Record what came last, and wait for the writer; a disk that stands still holds nobody up for long."""
        self._counted.see(final)
        self._take_in(events)
        self._repeat()
        self._tell(self._watch.minute())
        self.feed.minute(self._counted.take())
        self.feed.end({"kind": "end", "time_ns": time.time_ns(), "clean": True})
        self.writer.end(self.feed)

    def _set(self, step_ns: int) -> None:
        """Tell of a step of the wall clock: the minute ends by the old time, and the next begins by the new."""
        now_ns = time.time_ns()
        self._set_ns += step_ns
        self.feed.event({"kind": "clock", "time_ns": now_ns, "before_ns": now_ns - step_ns, "step_ns": step_ns})
        self.minute(step_ns)

    def _tell(self, frames: Iterable[dict[str, object]]) -> None:
        for one in frames:
            self.feed.event(one)

    def _take_in(self, events: Iterable[Event]) -> None:
        found = list(events)
        self._explain(found)
        self._watch.note(event for event in found if isinstance(event, CallEvent))

    def _explain(self, events: Iterable[Event]) -> None:
        for explained in self._explainer.explain(event for event in events if isinstance(event, Failure)):
            self.feed.event(failure_frame(explained))

    def _repeat(self) -> None:
        found = (*self._explainer.repeats(self._session.bursts()), *self._explainer.updates())
        for news in found:
            told = notified_dict(news) if isinstance(news, Notified) else repeated_dict(news)
            self.feed.event({**told, "time_ns": time.time_ns()})


def _set_ns() -> int:
    """Return the wall clock less one that nobody sets, and that goes on while the machine sleeps."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
