"""What a page tells of a recorded time, gathered frame by frame; how much there is of each kind has an end."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tracer.diagnosis.explainer import Explained, Notified, Repeated
from tracer.export.http.markup import moment
from tracer.host.space import Space
from tracer.latency.stuck import StuckCall
from tracer.mappings.risk import LimitedFilesystem
from tracer.model.asked import asked
from tracer.model.calls import CallEvent
from tracer.model.snapshot import Snapshot
from tracer.record.events import call_of, stuck_of
from tracer.record.incidents import Incidents
from tracer.record.minutes import Minute, minute_of
from tracer.record.reading import Account, Span
from tracer.record.timescale import Timescale

#: Incidents, slow calls, and lines of what else happened.
_INCIDENTS: Final = 500
_SLOW: Final = 100
_EVENTS: Final = 500
_DAY_NS: Final = 86_400_000_000_000


@dataclass(slots=True)
class Incident:
    """A failure with its report, how many more there were of it, and who was told of a late loss."""

    first: Explained
    more: Repeated | None = None
    news: list[Notified] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many failures it is."""
        return self.more.total if self.more else 1


@dataclass(slots=True)
class Left:
    """What a filesystem had left at first, at the end, and when that was least."""

    place: LimitedFilesystem
    first: Space
    last: Space
    least: Space
    least_ns: int


class Collected:
    """Takes in the frames of ``span``; ``account`` is what their reader notes.

    ``incidents`` begin with the first; ``slow`` with the longest call; ``stuck`` are the moments at which a call was
    last seen to be stuck, the longest first; ``events`` the other frames.
    """

    def __init__(self, frames: Iterable[dict[str, Any]], span: Span, account: Account) -> None:
        self.account = account
        self._span = span
        self._minute: Minute | None = None
        self.scale = Timescale()
        self.incidents: list[Incident] = []
        self._of: dict[int, Incident] = {}
        self._told = 0
        self._slow: list[tuple[int, int, CallEvent]] = []
        self._stuck: dict[tuple[int, int], tuple[int, StuckCall]] = {}
        self.events: list[dict[str, Any]] = []
        self.more_events = 0
        self.left: dict[LimitedFilesystem, Left] = {}
        self._incidents = Incidents()
        self._first_ns = self._last_ns = 0
        for frame in frames:
            self._take(frame)
        for more in self._incidents.repeats():
            if known := self._of.get(id(more.first)):
                known.more = more
            elif len(self.incidents) < _INCIDENTS:  # its report is before the span
                self.incidents.append(Incident(more.first, more))

    @property
    def is_empty(self) -> bool:
        """Whether there was no frame."""
        return not self._last_ns

    @property
    def begins_ns(self) -> int:
        """Return when the time begins, by the wall clock: where all was asked for, with the first frame."""
        return max(self._span.since_ns, self._first_ns)

    @property
    def ends_ns(self) -> int:
        """Return when it ends."""
        return min(self._span.until_ns, max(self._last_ns, self.begins_ns))

    @property
    def total(self) -> Snapshot:
        """Return what all minutes counted."""
        return self._minute.counts if self._minute else Snapshot(0, 0, {}, {}, {}, 0)

    @property
    def is_blind(self) -> bool:
        """Whether no call was counted, since no function was hooked."""
        return self._minute is None or self._minute.counts.tracepoints is not None

    @property
    def untold(self) -> int:
        """How many failures the kernel counted that are in no incident."""
        counts = self.total.failures
        told = sum(one.total for one in self.incidents)
        return max(0, sum(counts.values()) - told) if asked(counts) else 0

    @property
    def slow(self) -> list[CallEvent]:
        """Return the longest of the slow calls, the longest first."""
        return [call for _, _, call in sorted(self._slow, reverse=True)]

    @property
    def stuck(self) -> list[tuple[int, StuckCall]]:
        """Return when each stuck call was last seen to be, and as what; the longest first."""
        return sorted(self._stuck.values(), key=lambda row: -row[1].call.age_ns)

    def moments(self) -> list[str]:
        """Return when each column of the scale begins, and when the last one ends."""
        number, begins, width = len(self.scale.columns()), self.scale.begins_ns, self.scale.width_ns
        form = "%H:%M" if number * width < _DAY_NS else "%m-%d %H:%M"
        return [moment(begins + at * width, form) for at in range(number + 1)]

    def _take(self, frame: dict[str, Any]) -> None:
        at = frame["from_ns"] if frame["kind"] == "minute" else frame["time_ns"]
        self._first_ns = min(at, self._first_ns or at)
        self._last_ns = max(frame["time_ns"], self._last_ns)
        match frame["kind"]:
            case "minute":
                self._count(minute_of(frame))
            case "failure" | "repeated" | "told" | "forgotten":
                self._explain(frame)
            case "slow":
                call = call_of(frame)
                self._told += 1
                heapq.heappush(self._slow, (call.took_ns, self._told, call))
                if len(self._slow) > _SLOW:
                    heapq.heappop(self._slow)
            case "stuck":
                for each in frame["stuck"]:
                    one = stuck_of(each)
                    self._stuck[one.call.tid, one.call.inode] = (frame["time_ns"], one)
            case _ if len(self.events) < _EVENTS:
                self.events.append(frame)
            case _:
                self.more_events += 1

    def _count(self, minute: Minute) -> None:
        self._minute = minute if self._minute is None else self._minute + minute
        self.scale.add(minute)
        for place, space in minute.space.items():
            left = self.left.setdefault(place, Left(place, space, space, space, minute.time_ns))
            left.last = space
            if space.free < left.least.free:
                left.least, left.least_ns = space, minute.time_ns

    def _explain(self, frame: Mapping[str, Any]) -> None:
        for one in self._incidents.explain([frame]):
            if isinstance(one, Notified):
                if known := self._of.get(id(one.first)):
                    known.news.append(one)
            elif len(self.incidents) < _INCIDENTS:
                self._of[id(one)] = incident = Incident(one)
                self.incidents.append(incident)
