"""Failures by label values that never go backwards, in bounded room; see ``tracer.export.ledger``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Final, NamedTuple

from tracer.export.who import OTHER, Who
from tracer.failure import Class, FailureSeries
from tracer.text import printable


class Place(NamedTuple):
    """A mounted filesystem, as labels name it."""

    fstype: str
    mountpoint: str


class Kind(NamedTuple):
    """What was refused, and with which errno ("" if none is known)."""

    kind: Class
    errno: str


class Refused(NamedTuple):
    """What failures are counted by."""

    place: Place
    kind: Kind
    who: tuple[str, ...]


#: What any filesystem on a device may come to.
_KNOWN: Final = (
    *(Kind(Class.REFUSED, errno) for errno in ("ENOSPC", "EDQUOT", "EIO", "EROFS", "")),
    Kind(Class.BEYOND_END, ""),
    Kind(Class.MEDIA, "EIO"),
)
_OTHERS: Final = Place(OTHER, OTHER)


class FailureLedger:
    """Books what is new in each snapshot under the labels of that moment.

    At most ``max_places`` filesystems have counts of their own, the others together are "other"; one that is not
    mounted any more makes room, the one first whose last failure is the oldest.
    """

    def __init__(self, who: Who, max_places: int) -> None:
        self._who = who
        self._max_places = max_places
        self._seen: dict[tuple[int, Kind, str], int] = {}
        #: The last place that failed is the last one.
        self._counts: dict[Place, Counter[tuple[Kind, tuple[str, ...]]]] = {}

    def counts(self, places: Iterable[Place]) -> Iterator[tuple[Refused, int]]:
        """What has failed, and zeros for ``places``.

        A counter that comes to be with a 1 has a rate of 0: it must be there before it counts.
        """
        nobody = self._who.nobody
        found = {Refused(place, kind, nobody): 0 for place in places for kind in _KNOWN}
        for place, counts in self._counts.items():
            found.update({Refused(place, kind, who): number for (kind, who), number in counts.items()})
        yield from sorted(found.items())

    def book(self, failures: Mapping[FailureSeries, int], mounted: Set[str]) -> None:
        """Take in a snapshot's failures; ``mounted`` are the mount points that there are now."""
        for (place, kind, who), number in self._growth(failures).items():
            counts = self._counts.pop(place, None)
            if counts is None and not self._has_room(mounted):
                place = _OTHERS
                counts = self._counts.pop(place, None)
            self._counts[place] = counts or Counter()
            self._counts[place][kind, who] += number

    def _growth(self, failures: Mapping[FailureSeries, int]) -> Counter[Refused]:
        """What has been counted since the last snapshot, whatever the mounts were called then."""
        totals: Counter[tuple[int, Kind, str]] = Counter()
        names: dict[tuple[int, Kind, str], Place] = {}
        for series, number in failures.items():
            identity = (series.dev, Kind(series.kind, series.errno), series.who)
            totals[identity] += number
            names[identity] = Place(printable(series.fstype), printable(series.mountpoint))
        grown: Counter[Refused] = Counter()
        for identity, number in totals.items():
            known = self._seen.get(identity, 0)
            if number > known:
                _, kind, who = identity
                grown[Refused(names[identity], kind, self._who.values(who))] += number - known
                self._seen[identity] = number
        return grown

    def _has_room(self, mounted: Set[str]) -> bool:
        own = self._counts.keys() - {_OTHERS}
        if len(own) < self._max_places:
            return True
        gone = next((place for place in self._counts if place in own and place.mountpoint not in mounted), None)
        if gone is None:
            return False
        del self._counts[gone]
        return True
