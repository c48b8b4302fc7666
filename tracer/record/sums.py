"""The minutes of a time as one, added up as they are read: what a day of them has is not kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tracer.model.asked import asked
from tracer.model.calls import Series
from tracer.model.failures import FailureSeries
from tracer.model.histogram import BUCKETS, Histogram
from tracer.model.waits import WaitSeries, WaitTime
from tracer.record.minutes import Minute, minute_of, series_of

_NO_TRACER: Final[dict[str, Any]] = {"hooks": (), "notes": ()}


class Sums:
    """Adds frames of minutes up: the same as the sum of what ``minute_of`` makes of each, sooner.

    The reader gives all lines of a segment the same labels: they are told apart by being the same object, and become
    series at the end.
    """

    def __init__(self) -> None:
        #: By the labels' identity: the labels, which keep it, and their numbers.
        self._calls: dict[int, tuple[Mapping[str, Any], list[int], list[int]]] = {}
        self._failures: dict[int, tuple[Mapping[str, Any], list[int]]] = {}
        self._waits: dict[int, tuple[Mapping[str, Any], list[int]]] = {}
        self._rest: Minute | None = None
        self._last: Mapping[str, Any] = {}

    def add(self, frame: Mapping[str, Any]) -> None:
        """Take in a minute. Raises ValueError, KeyError or TypeError for what is none."""
        without = {name: () for name in ("calls", "failures", "waits") if name in frame}
        rest = minute_of({**frame, **without, "space": (), "risk": (), "tracer": _NO_TRACER})
        self._rest = rest if self._rest is None else self._rest + rest
        self._last = frame
        for labels, sum_ns, max_ns, sparse in frame["calls"]:
            _, total, buckets = self._calls.setdefault(id(labels), (labels, [0, 0], [0] * BUCKETS))
            total[0] += sum_ns
            total[1] = max(total[1], max_ns)
            for index, number in sparse:
                buckets[index] += number
        for labels, number in frame.get("failures", ()):
            self._failures.setdefault(id(labels), (labels, [0]))[1][0] += number
        for labels, count, ns, max_ns in frame.get("waits", ()):
            _, time = self._waits.setdefault(id(labels), (labels, [0, 0, 0]))
            time[0] += count
            time[1] += ns
            time[2] = max(time[2], max_ns)

    def minute(self) -> Minute | None:
        """Return the sum; None if there was no minute. What is no sum is the last minute's."""
        if self._rest is None:
            return None
        calls: dict[Series, Histogram] = {}
        for labels, (sum_ns, max_ns), buckets in self._calls.values():
            one, histogram = series_of(Series, labels), Histogram(tuple(buckets), sum_ns, max_ns)
            calls[one] = calls[one] + histogram if one in calls else histogram
        failures: dict[FailureSeries, int] = {}
        for labels, (number,) in self._failures.values():
            failure = series_of(FailureSeries, labels)
            failures[failure] = failures.get(failure, 0) + number
        waits: dict[WaitSeries, WaitTime] = {}
        for labels, numbers in self._waits.values():
            wait = series_of(WaitSeries, labels)
            waits[wait] = waits.get(wait, WaitTime()) + WaitTime(*numbers)
        last, counts = minute_of(self._last), self._rest.counts
        counts = replace(
            counts,
            calls=calls,
            failures=failures if asked(counts.failures) else counts.failures,
            waits=waits if asked(counts.waits) else counts.waits,
            hooks=last.counts.hooks,
            notes=last.counts.notes,
        )
        return replace(self._rest, counts=counts, space=last.space, risk=last.risk)
