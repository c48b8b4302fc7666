"""Failures by label values; the numbers are kept by ``tracer.export.prometheus.place_ledger``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Final, NamedTuple

from tracer.export.prometheus.label import Who
from tracer.export.prometheus.place_ledger import Counted, MountLabels, PlaceLedger
from tracer.model.failures import Class, FailureSeries
from tracer.text import printable


class FailureKind(NamedTuple):
    """What was refused, and with which errno ("" if none is known)."""

    kind: Class
    errno: str


class Refused(NamedTuple):
    """What failures are counted by."""

    place: MountLabels
    kind: FailureKind


#: What any filesystem on a device may come to.
_KNOWN: Final = (
    *(FailureKind(Class.REFUSED, errno) for errno in ("ENOSPC", "EDQUOT", "EIO", "EROFS", "")),
    FailureKind(Class.BEYOND_END, ""),
    *(FailureKind(Class.MEDIA, errno) for errno in ("EIO", "ESTALE", "")),
    *(FailureKind(Class.WRITEBACK, errno) for errno in ("ENOSPC", "EDQUOT", "EIO")),
)


class FailureLedger:
    """Failures of at most ``max_places`` filesystems, or of so many together with whom they happened to."""

    def __init__(self, who: Who, max_places: int) -> None:
        self._who = who
        self._ledger: PlaceLedger[FailureKind] = PlaceLedger(max_places, who.others)

    def counts(self, places: Iterable[MountLabels]) -> Iterator[tuple[Refused, int]]:
        """Yield what has failed, and zeros for ``places``."""
        of_nobody = [place._replace(who=self._who.nobody) for place in places]
        for place, kind, number in self._ledger.counts(of_nobody, _KNOWN):
            yield Refused(place, kind), number

    def book(self, failures: Mapping[FailureSeries, int], mounted: Set[str], gone: Mapping[FailureSeries, int]) -> None:
        """Take in a snapshot's failures; ``mounted`` are the mount points that there are now.

        ``gone`` are those that later snapshots will not count any more.
        """
        self._ledger.book(map(self._counted, failures.items()), mounted)
        self._ledger.release(map(self._counted, gone.items()))

    def _counted(self, item: tuple[FailureSeries, int]) -> Counted[FailureKind]:
        series, number = item
        kind = FailureKind(series.kind, series.errno)
        place = MountLabels(printable(series.fstype), printable(series.mountpoint), self._who.values(series.who))
        return Counted(series.nameless, place, kind, number)
