"""Taking the series of what is gone out of the kernel, so that there is room for those that come."""

from __future__ import annotations

from collections.abc import Mapping, Set

from tracer.histogram import Histogram
from tracer.host.gone import IsGone
from tracer.model import Series
from tracer.naming import Naming
from tracer.probes.maps import Maps, RawSeries


def make_room(
    maps: Maps, naming: Naming, raw: Mapping[RawSeries, Histogram], waiting: Set[int], is_gone: IsGone
) -> dict[Series, Histogram]:
    """What was removed. Calls of those in ``waiting`` may still be counted, by whoever takes over their slot."""
    removed: dict[Series, Histogram] = {}
    left: set[int] = set()
    fstypes = maps.fstypes()
    for key, total in raw.items():
        gone = key.who not in waiting and is_gone(key.who)
        histogram = maps.remove(key) if gone else None
        if histogram:
            series = naming.series(key, fstypes)
            removed[series] = removed.get(series, Histogram()) + histogram
        if histogram is None or histogram.count < total.count:
            left.add(key.who)
    naming.forget({key.who for key in raw} - left)
    return removed
