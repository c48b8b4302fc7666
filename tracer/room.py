"""Taking what is counted of those that are gone out of the kernel, so that there is room for those that come."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field

from tracer.failure import Cause, FailureSeries
from tracer.histogram import Histogram
from tracer.host.gone import IsGone
from tracer.model import Series
from tracer.naming import Naming
from tracer.probes.maps import Maps, RawSeries


@dataclass(frozen=True, slots=True)
class Removed:
    """What later snapshots will not have any more."""

    calls: dict[Series, Histogram] = field(default_factory=dict)
    failures: dict[FailureSeries, int] = field(default_factory=dict)


def make_room(
    maps: Maps,
    naming: Naming,
    raw: Mapping[RawSeries, Histogram],
    causes: Mapping[Cause, int],
    waiting: Set[int],
    is_gone: IsGone,
) -> Removed:
    """What was removed. Calls of those in ``waiting`` may still be counted, by whoever takes over their slot."""
    removed = Removed()
    whos = {key.who for key in raw} | {cause.who for cause in causes}
    gone = {who for who in whos - waiting if is_gone(who)}
    left = whos - gone
    fstypes = naming.fstypes(maps.fstypes())
    for key, total in raw.items():
        histogram = maps.remove(key) if key.who in gone else None
        if histogram:
            series = naming.series(key, fstypes)
            removed.calls[series] = removed.calls.get(series, Histogram()) + histogram
        if histogram is None or histogram.count < total.count:
            left.add(key.who)
    for cause, number in causes.items():
        if cause.who in gone and maps.remove_cause(cause):
            kind = naming.failure_series(cause, fstypes)
            removed.failures[kind] = removed.failures.get(kind, 0) + number
        else:
            left.add(cause.who)
    naming.forget(whos - left)
    return removed
