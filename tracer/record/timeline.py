"""A recorded time, minute by minute: what ``mkwrite top`` shows of each, and where the next failure is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tracer.latency.stuck import StuckCall
from tracer.model.asked import asked
from tracer.model.failures import Failure
from tracer.record.events import stuck_of
from tracer.record.minutes import Minute, minute_of
from tracer.record.reading import Account, Span, read
from tracer.record.reports import failure_of
from tracer.record.segments import Segments

_HOUR_NS: Final = 3_600_000_000_000
#: How far back is looked at first; each further look goes four times as far.
_WIDTHS: Final = tuple(_HOUR_NS << shift for shift in range(0, 24, 2))
#: The end of time.
_NEVER: Final = 1 << 62

Chosen = Callable[[Mapping[str, Any]], bool]


@dataclass(frozen=True, slots=True)
class Moment:
    """A minute, and what was told in it: failures, the calls that were stuck at its end, and the other frames."""

    minute: Minute
    failures: tuple[Failure, ...]
    stuck: tuple[StuckCall, ...]
    frames: tuple[dict[str, Any], ...]

    def __add__(self, later: Moment) -> Moment:
        failures, frames = (*self.failures, *later.failures), (*self.frames, *later.frames)
        return Moment(self.minute + later.minute, failures, later.stuck, frames)

    @property
    def untold(self) -> int:
        """How many failures were only counted."""
        counted = self.minute.counts.failures
        return max(0, sum(counted.values()) - len(self.failures)) if asked(counted) else 0


class Timeline:
    """Looks up moments of an open record; ``chosen`` chooses failures and stuck calls, as JSON has them.

    Lines that cannot be read are passed over: ``read`` with an ``Account`` tells of them.
    """

    def __init__(self, record: Segments, chosen: Chosen = lambda frame: True) -> None:
        self._record = record
        self._chosen = chosen

    def minute(self, ns: int) -> Minute | None:
        """Return the minute that a moment is in; of two (the clock was set back) the later one."""
        found = [one for one in self._read(Span(ns, ns), ("minute",)) if one["from_ns"] <= ns < one["time_ns"]]
        return minute_of(found[-1]) if found else None

    def after(self, ns: int) -> Minute | None:
        """Return the first minute that begins then or later."""
        for frame in self._read(Span(ns, _NEVER), ("minute",)):
            if frame["from_ns"] >= ns:
                return minute_of(frame)
        return None

    def before(self, ns: int) -> Minute | None:
        """Return the last minute that ends then or before."""
        frame = self._last(ns, ("minute",))
        return minute_of(frame) if frame else None

    def failure_after(self, ns: int) -> int | None:
        """Return when the first failure after a moment was."""
        found = self._read(Span(ns + 1, _NEVER), ("failure",))
        return next((frame["time_ns"] for frame in found if self._chosen(frame)), None)

    def failure_before(self, ns: int) -> int | None:
        """Return when the last failure before a moment was."""
        frame = self._last(ns - 1, ("failure",))
        return frame["time_ns"] if frame else None

    def moment(self, minute: Minute, account: Account | None = None) -> Moment:
        """Return what was told in a minute; ``account`` is of it."""
        span = Span(minute.from_ns, minute.time_ns)
        found = list(read(self._record, span, account or Account()))
        frames = [one for one in found if one["kind"] != "minute" and within(minute, one)]
        return _moment(minute, frames, self._chosen)

    def _last(self, ns: int, kinds: Collection[str]) -> dict[str, Any] | None:
        for width in _WIDTHS:
            last = None
            for frame in self._read(Span(max(0, ns - width), ns), kinds):
                if frame["time_ns"] <= ns and (frame["kind"] == "minute" or self._chosen(frame)):
                    last = frame
            if last or width > ns:
                return last
        return None

    def _read(self, span: Span, kinds: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
        return read(self._record, span, Account(), kinds)


def moments(frames: Iterable[dict[str, Any]], chosen: Chosen) -> Iterator[Moment]:
    """Yield a moment for each minute of the frames of a span, in one pass.

    What a minute has is written before it; where the disk stood still, what later minutes have, too.
    """
    waiting: list[dict[str, Any]] = []
    for frame in frames:
        if frame["kind"] != "minute":
            waiting.append(frame)
            continue
        minute = minute_of(frame)
        yield _moment(minute, [one for one in waiting if within(minute, one)], chosen)
        waiting = [one for one in waiting if one["time_ns"] >= minute.time_ns]


def within(minute: Minute, frame: Mapping[str, Any]) -> bool:
    """Whether what a frame tells of was in a minute."""
    return bool(minute.from_ns <= frame["time_ns"] < minute.time_ns)


def _moment(minute: Minute, frames: list[dict[str, Any]], chosen: Chosen) -> Moment:
    # A minute that is several has a look at stuck calls for each: the last is that at its end.
    looks = [one["stuck"] for one in frames if one["kind"] == "stuck"]
    return Moment(
        minute,
        tuple(failure_of(one) for one in frames if one["kind"] == "failure" and chosen(one)),
        tuple(stuck_of(each) for each in (looks[-1] if looks else ()) if chosen(each)),
        tuple(one for one in frames if one["kind"] not in ("failure", "stuck")),
    )
