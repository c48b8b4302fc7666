"""What the programs have counted, under its names: of filesystems that are there, and of those that have ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain

from tracer.decode.eviction import Counts, Eviction, Removed, put
from tracer.decode.names import Naming
from tracer.host.liveness import IsGone
from tracer.model.calls import Filesystem, Series
from tracer.model.failures import Cause, FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.waits import WaitSeries, WaitTime
from tracer.probes.abi import RACED
from tracer.probes.maps import Maps
from tracer.probes.records import RawSeries, RawWait


@dataclass(slots=True)
class Tallied:
    """A reading. ``ages`` are the ns that calls in flight have lasted, 0 for those that wait for their PTE."""

    calls: dict[Series, Histogram] = field(default_factory=dict)
    failures: dict[FailureSeries, int] = field(default_factory=dict)
    waits: dict[WaitSeries, WaitTime] = field(default_factory=dict)
    removed: Removed = field(default_factory=Removed)
    ages: list[int] = field(default_factory=list)

    def add(self, removed: Removed) -> None:
        """Count what the kernel does not have any more, too."""
        for series, histogram in removed.calls.items():
            put(self.calls, series, histogram)
        for failure, number in removed.failures.items():
            put(self.failures, failure, number)
        for wait, time in removed.waits.items():
            put(self.waits, wait, time)


class Tally:
    """Reads the maps. What was counted of a filesystem that has ended is taken out of them."""

    def __init__(self, maps: Maps, naming: Naming, max_series: int, make_room: bool) -> None:
        """``make_room``: what is taken out is told once (``Tallied.removed``), instead of in every later reading."""
        self._maps = maps
        self._naming = naming
        self._room = max_series // 2
        self._make_room = make_room
        self._kept = Tallied()

    def read(
        self, now_ns: int, raced_after_ns: int, drain: Callable[[], None], gone: Callable[[], IsGone] | None, last: bool
    ) -> Tallied:
        """Read all that has been counted.

        A call that waits for its PTE for longer than ``raced_after_ns`` has raced. ``drain`` takes in events, which
        name what was counted before. ``gone`` makes a test for who is gone. ``last``: nothing is taken out any more.
        """
        maps = self._maps
        numbers = maps.numbers()  # first: what has ended by now is whole in what is read next
        counts = Counts(maps.histograms(), maps.causes(), {raw: WaitTime(*sums) for raw, sums in maps.waits().items()})
        self._naming.keep(
            chain(
                ((raw.filesystem, raw.who) for raw in counts.calls),
                ((Filesystem(cause.dev, cause.generation), cause.who) for cause in counts.failures),
            ),
            4 * self._room + 2 * maps.room_for_causes,
        )
        drain()
        result = Tallied()
        raced: dict[RawSeries, Histogram] = {}
        for slot in maps.slots():
            if slot.series.kind and now_ns - slot.start_ns - slot.latency_ns >= raced_after_ns:
                # The programs will count it when the task comes back, if it does.
                number = numbers.get(slot.series.dev)
                raw = slot.series.of(number.at(slot.start_ns) if number else 0)
                put(raced, raw._replace(kind=raw.kind | RACED), Histogram.of(slot.latency_ns))
            else:
                result.ages.append(0 if slot.series.kind else now_ns - slot.start_ns)
        waiting = {raw.filesystem for raw in raced}

        def is_over(filesystem: Filesystem) -> bool:
            number = numbers.get(filesystem.dev)
            now = number.generation if number else 0
            return now != filesystem.generation and filesystem not in waiting

        fstypes = maps.fstypes()
        eviction = Eviction(maps, self._naming, fstypes)
        ended = Removed() if last else eviction.ended(counts, is_over)
        if not last:
            counts = _without(counts, is_over)
        self._name(result, counts, raced, fstypes)
        if self._make_room:
            result.add(ended)
            result.removed = ended
        else:
            self._kept.add(ended)
            result.add(Removed(self._kept.calls, self._kept.failures, self._kept.waits))
        if gone and (len(counts.calls) + len(raced) > self._room or len(counts.failures) > maps.room_for_causes // 2):
            eviction.exited(counts, {raw.who for raw in raced}, gone(), result.removed)
        return result

    def _name(
        self,
        result: Tallied,
        counts: Counts,
        raced: Mapping[RawSeries, Histogram],
        fstypes: Mapping[Filesystem, str],
    ) -> None:
        for cause, number in counts.failures.items():
            put(result.failures, self._naming.failure_series(cause, fstypes), number)
        for raw, histogram in chain(counts.calls.items(), raced.items()):
            put(result.calls, self._naming.series(raw, fstypes), histogram)
        for wait, time in counts.waits.items():
            put(result.waits, self._naming.wait_series(wait, fstypes), time)


def _without(counts: Counts, is_over: Callable[[Filesystem], bool]) -> Counts:
    """Return what was not taken out."""
    calls = {raw: histogram for raw, histogram in counts.calls.items() if not is_over(raw.filesystem)}
    failures: dict[Cause, int] = {
        cause: number
        for cause, number in counts.failures.items()
        if not is_over(Filesystem(cause.dev, cause.generation))
    }
    waits: dict[RawWait, WaitTime] = {wait: time for wait, time in counts.waits.items() if not is_over(wait.filesystem)}
    return Counts(calls, failures, waits)
