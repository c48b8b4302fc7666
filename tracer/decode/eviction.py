"""Taking what is counted of those that are gone out of the kernel, so that there is room for those that come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import TypeVar

from tracer.decode.names import Naming
from tracer.host.liveness import IsGone
from tracer.model.calls import Filesystem, Series
from tracer.model.failures import Cause, FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.waits import WaitSeries, WaitTime
from tracer.probes.maps import Maps
from tracer.probes.records import RawSeries, RawWait

K = TypeVar("K")
V = TypeVar("V", Histogram, WaitTime, int)


def put(into: dict[K, V], key: K, value: V) -> None:
    """Add to what there is under a key."""
    known = into.get(key)
    into[key] = value if known is None else known + value


@dataclass(frozen=True, slots=True)
class Counts:
    """What the programs have counted."""

    calls: Mapping[RawSeries, Histogram]
    failures: Mapping[Cause, int]
    waits: Mapping[RawWait, WaitTime]


@dataclass(frozen=True, slots=True)
class Removed:
    """What the kernel does not have any more, and later readings will not find."""

    calls: dict[Series, Histogram] = field(default_factory=dict)
    failures: dict[FailureSeries, int] = field(default_factory=dict)
    waits: dict[WaitSeries, WaitTime] = field(default_factory=dict)


class Eviction:
    """Takes counts out of the maps, and keeps them under their names."""

    def __init__(self, maps: Maps, naming: Naming, fstypes: Mapping[Filesystem, str]) -> None:
        self._maps = maps
        self._naming = naming
        self._fstypes = fstypes

    def ended(self, counts: Counts, is_over: Callable[[Filesystem], bool]) -> Removed:
        """Remove what was counted of filesystems that have ended: nothing is counted under them any more."""
        removed = Removed()
        over = {raw for raw in counts.calls if is_over(raw.filesystem)}
        calls = self._maps.empty_front(over) if over else {}
        for raw in over:
            if histogram := self._maps.remove(raw):
                put(calls, raw, histogram)
        for raw, histogram in calls.items():
            put(removed.calls, self._naming.series(raw, self._fstypes), histogram)
        for cause, number in counts.failures.items():
            if is_over(Filesystem(cause.dev, cause.generation)) and self._maps.remove_cause(cause):
                put(removed.failures, self._naming.failure_series(cause, self._fstypes), number)
        for wait, time in counts.waits.items():
            if is_over(wait.filesystem) and self._maps.remove_wait(wait):
                put(removed.waits, self._naming.wait_series(wait, self._fstypes), time)
        for filesystem in filter(is_over, self._fstypes):
            self._maps.remove_fstype(filesystem)
        self._naming.end(is_over)
        return removed

    def exited(self, counts: Counts, waiting: Set[int], is_gone: IsGone, removed: Removed) -> None:
        """Remove what was counted of processes and cgroups that are gone, besides what was ``removed`` before.

        Calls of those in ``waiting`` may still be counted, by whoever takes over their slot.
        """
        whos = {key.who for key in counts.calls} | {cause.who for cause in counts.failures}
        gone = {who for who in whos - waiting if is_gone(who)}
        left = whos - gone
        for raw, total in counts.calls.items():
            histogram = self._maps.remove(raw) if raw.who in gone else None
            if histogram:
                put(removed.calls, self._naming.series(raw, self._fstypes), histogram)
            if histogram is None or histogram.count < total.count:
                left.add(raw.who)
        for cause, number in counts.failures.items():
            if cause.who in gone and self._maps.remove_cause(cause):
                put(removed.failures, self._naming.failure_series(cause, self._fstypes), number)
            else:
                left.add(cause.who)
        self._naming.forget(whos - left)
