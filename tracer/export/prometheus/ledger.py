"""Counts by label values that never go backwards, in bounded room, while filesystems and processes come and go."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import islice
from typing import Final, NamedTuple

from tracer.export.prometheus.label import OTHER, Who
from tracer.model.calls import FaultPath, Initiator, Outcome, Series, device_name
from tracer.model.histogram import Histogram
from tracer.model.snapshot import Snapshot
from tracer.text import printable

#: A source that has not been heard of for so long makes room for a new one.
_IDLE_S: Final = 3600.0
#: Counts of so many sources that made room are kept, in multiples of the places: they may come back.
_KEPT: Final = 4


class SeriesLabels(NamedTuple):
    """The labels that a host, not the vocabulary, has values for: what there may be too many of."""

    fstype: str
    mountpoint: str
    device: str
    handler: str
    who: tuple[str, ...] = ()


class CallKind(NamedTuple):
    """The labels whose values are the vocabulary's."""

    path: FaultPath
    initiator: Initiator
    outcome: Outcome


_Kinds = Mapping[CallKind, Histogram]


class Ledger:
    """Books what is new in each snapshot under the labels of that moment.

    Of a counter that is named by what the host calls things, only the growth can be trusted: a device number that
    is mounted elsewhere brings the counts of its old life with it. At most ``max_sources`` sources are shown under
    their own names, the others together as "other". A source gives up its place only when another needs it, and
    only when its filesystem is not mounted any more or nothing was heard of it for an hour; what it had counted is
    remembered, and is where it goes on if it comes back.
    """

    def __init__(self, who: Who, max_sources: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._who = who
        self._max_sources = max_sources
        self._clock = clock
        self._seen: dict[Series, Histogram] = {}
        self._counts: dict[SeriesLabels, dict[CallKind, Histogram]] = {}
        #: Sources that are shown, and when each was last heard of.
        self._shown: dict[SeriesLabels, float] = {}
        self._folded = SeriesLabels(OTHER, OTHER, OTHER, OTHER, who.others)
        self._homeless: set[SeriesLabels] = set()

    @property
    def dropped(self) -> int:
        """Sources whose calls are counted as "other" now."""
        return len(self._homeless)

    def calls(self) -> Iterator[tuple[SeriesLabels, _Kinds]]:
        """Yield what each source that is shown has counted."""
        for source in (*self._shown, self._folded):
            if source in self._counts:
                yield source, self._counts[source]

    def book(self, snapshot: Snapshot, mounted: Set[str]) -> Mapping[Series, Histogram]:
        """Take in a snapshot; ``mounted`` are the mount points that there are now. Returns the new calls."""
        grown = self._growth(snapshot)
        by_who: Counter[str] = Counter()
        for series, histogram in grown.items():
            by_who[series.who] += histogram.count
        self._who.note(by_who, snapshot.monotonic_ns)
        present: set[SeriesLabels] = set()
        new: dict[SeriesLabels, dict[CallKind, Histogram]] = {}
        for series in snapshot.calls:
            source = self._source(series)
            present.add(source)
            if series in grown:
                kinds = new.setdefault(source, {})
                kind = CallKind(series.path, series.initiator, series.outcome)
                kinds[kind] = kinds[kind] + grown[series] if kind in kinds else grown[series]
        self._release(snapshot.gone)
        self._place(new, present, mounted)
        for source, kinds in new.items():
            self._add(source if source in self._shown else self._folded, kinds)
        self._homeless &= present
        self._forget()
        return grown

    def _source(self, series: Series) -> SeriesLabels:
        return SeriesLabels(
            printable(series.fstype),
            printable(series.mountpoint),
            device_name(series.dev),
            printable(series.handler),
            self._who.values(series.who),
        )

    def _growth(self, snapshot: Snapshot) -> dict[Series, Histogram]:
        """Return what has been counted since the last snapshot, whatever the mounts were called then."""
        totals: dict[Series, tuple[Series, Histogram]] = {}
        for series, histogram in snapshot.calls.items():
            identity = series.nameless
            same = totals.get(identity)
            totals[identity] = (series, histogram if same is None else same[1] + histogram)
        grown: dict[Series, Histogram] = {}
        for identity, (series, histogram) in totals.items():
            known = self._seen.get(identity)
            if known is None:
                self._seen[identity] = grown[series] = histogram
            elif histogram != known:
                grown[series] = histogram.since(known)
                self._seen[identity] = known + grown[series]
        return grown

    def _release(self, gone: Mapping[Series, Histogram]) -> None:
        """Later snapshots do not count these calls."""
        for series, histogram in gone.items():
            identity = series.nameless
            left = self._seen[identity].since(histogram)
            if left.count:
                self._seen[identity] = left
            else:
                del self._seen[identity]

    def _place(self, new: Mapping[SeriesLabels, _Kinds], present: Set[SeriesLabels], mounted: Set[str]) -> None:
        """Give those that counted something a place, as far as there are any: the busiest first."""
        now = self._clock()
        if self._who.labels:  # who is not among the busiest any more is not to stay as a name
            self._hide(source for source in self._shown.keys() - present)
        for source in self._shown.keys() & new.keys():
            self._shown[source] = now
        counts = {source: sum(h.count for h in kinds.values()) for source, kinds in new.items()}
        waiting = sorted(new.keys() - self._shown.keys(), key=lambda source: (-counts[source], source))
        lacking = len(self._shown) + len(waiting) - self._max_sources
        if lacking > 0:
            idle = sorted(self._shown.keys() - new.keys(), key=lambda source: self._shown[source])
            gone = [source for source in idle if source.mountpoint and source.mountpoint not in mounted]
            silent = [source for source in idle if source not in gone and now - self._shown[source] > _IDLE_S]
            self._hide((gone + silent)[:lacking])
        free = self._max_sources - len(self._shown)
        self._shown.update(dict.fromkeys(waiting[:free], now))
        self._homeless.update(waiting[free:])
        self._homeless.difference_update(waiting[:free])

    def _hide(self, sources: Iterable[SeriesLabels]) -> None:
        for source in sources:
            del self._shown[source]
            # The order of the counts is that in which sources left, as far as they did.
            self._counts[source] = self._counts.pop(source)

    def _add(self, source: SeriesLabels, kinds: _Kinds) -> None:
        counts = self._counts.setdefault(source, {})
        for kind, histogram in kinds.items():
            counts[kind] = counts[kind] + histogram if kind in counts else histogram

    def _forget(self) -> None:
        """Bound what is remembered of sources that are not shown: those that left first are forgotten first."""
        surplus = len(self._counts) - (1 + _KEPT) * self._max_sources
        if surplus <= 0:
            return
        hidden = (source for source in self._counts if source not in self._shown and source != self._folded)
        for source in list(islice(hidden, surplus)):
            del self._counts[source]
