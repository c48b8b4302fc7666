"""Numbers by filesystem that never go backwards, in bounded room; see ``tracer.export.prometheus.ledger``."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from tracer.export.prometheus.label import OTHER


class _Sortable(Hashable, Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


K = TypeVar("K", bound=_Sortable)


class MountLabels(NamedTuple):
    """A mounted filesystem, as labels name it, and whom it was counted for, where that is told apart."""

    fstype: str
    mountpoint: str
    who: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Counted(Generic[K]):
    """A number that a snapshot has, and what it is to be shown under now.

    ``identity`` stays the same whatever the mounts are called.
    """

    identity: Hashable
    place: MountLabels
    label: K
    number: int


#: For whom nothing was counted for so long, he makes room for others.
_IDLE_S: Final = 3600.0


class PlaceLedger(Generic[K]):
    """Books what is new in each snapshot under the labels of that moment.

    At most ``max_places`` have numbers of their own, the others together are "other", and for ``others``. One that is
    not mounted any more makes room, or whom nothing was counted for in an hour: the one first that was counted for the
    longest ago.
    """

    def __init__(
        self, max_places: int, others: tuple[str, ...] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_places = max_places
        self._others = MountLabels(OTHER, OTHER, others)
        self._clock = clock
        self._seen: dict[Hashable, int] = {}
        #: The last place that was counted for is the last one.
        self._counts: dict[MountLabels, Counter[K]] = {}
        self._heard: dict[MountLabels, float] = {}

    def counts(self, places: Iterable[MountLabels], known: Iterable[K]) -> Iterator[tuple[MountLabels, K, int]]:
        """Yield what was counted, and zeros for ``known`` labels of ``places``, of as many as have room.

        A counter that comes to be with a 1 has a rate of 0: it must be there before it counts.
        """
        labels = tuple(known)
        found = {(place, label): 0 for place in sorted(places)[: self._max_places] for label in labels}
        for place, counts in self._counts.items():
            found.update({(place, label): number for label, number in counts.items()})
        for place, label in sorted(found):
            yield place, label, found[place, label]

    def book(self, counted: Iterable[Counted[K]], mounted: Set[str]) -> None:
        """Take in a snapshot's numbers; ``mounted`` are the mount points that there are now."""
        self.add(self._growth(counted), mounted)

    def release(self, gone: Iterable[Counted[K]]) -> None:
        """Later snapshots do not count these any more."""
        for one in gone:
            left = self._seen[one.identity] - one.number
            if left:
                self._seen[one.identity] = left
            else:
                del self._seen[one.identity]

    def add(self, grown: Mapping[tuple[MountLabels, K], int], mounted: Set[str]) -> None:
        """Book what is new by place and label; ``mounted`` as in ``book``."""
        for (place, label), number in grown.items():
            counts = self._counts.pop(place, None)
            if counts is None and not self._has_room(mounted):
                place = self._others
                counts = self._counts.pop(place, None)
            self._heard[place] = self._clock()
            self._counts[place] = counts or Counter()
            self._counts[place][label] += number

    def _growth(self, counted: Iterable[Counted[K]]) -> Counter[tuple[MountLabels, K]]:
        """Return what has been counted since the last snapshot, whatever the mounts were called then."""
        totals: Counter[Hashable] = Counter()
        last: dict[Hashable, Counted[K]] = {}
        for one in counted:
            totals[one.identity] += one.number
            last[one.identity] = one
        grown: Counter[tuple[MountLabels, K]] = Counter()
        for identity, number in totals.items():
            known = self._seen.get(identity, 0)
            if number > known:
                grown[last[identity].place, last[identity].label] += number - known
                self._seen[identity] = number
        return grown

    def _has_room(self, mounted: Set[str]) -> bool:
        own = [place for place in self._counts if place != self._others]
        if len(own) < self._max_places:
            return True
        idle = self._clock() - _IDLE_S
        gone = (p for p in own if p.mountpoint not in mounted or (p.who and self._heard[p] < idle))
        first = next(gone, None)
        if first is None:
            return False
        del self._counts[first], self._heard[first]
        return True
