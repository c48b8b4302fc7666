"""Waits by label values; the numbers are kept by ``tracer.export.prometheus.place_ledger``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

from tracer.export.prometheus.place_ledger import Counted, MountLabels, PlaceLedger
from tracer.model.waits import Wait, WaitSeries, WaitTime
from tracer.text import printable


class WaitLedger:
    """Time waited on at most ``max_places`` filesystems, by reason."""

    def __init__(self, max_places: int) -> None:
        self._ledger: PlaceLedger[Wait] = PlaceLedger(max_places)

    def counts(self, places: Iterable[MountLabels]) -> Iterator[tuple[MountLabels, Wait, int]]:
        """Ns by filesystem and reason, and zeros for ``places``."""
        return self._ledger.counts(places, Wait)

    def book(
        self, waits: Mapping[WaitSeries, WaitTime], mounted: Set[str], gone: Mapping[WaitSeries, WaitTime]
    ) -> None:
        """Take in a snapshot's waits; ``mounted`` are the mount points that there are now.

        ``gone`` are those that later snapshots will not count any more.
        """
        self._ledger.book(map(_counted, waits.items()), mounted)
        self._ledger.release(map(_counted, gone.items()))


def _counted(item: tuple[WaitSeries, WaitTime]) -> Counted[Wait]:
    series, time = item
    place = MountLabels(printable(series.fstype), printable(series.mountpoint))
    return Counted(series.nameless, place, series.reason, time.ns)
