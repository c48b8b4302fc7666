"""Counts of a recorded time in columns of a chart: as many minutes each as keep their number small."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from tracer.model.asked import asked
from tracer.model.failures import Class
from tracer.model.histogram import Histogram
from tracer.model.snapshot import Snapshot
from tracer.record.minutes import Minute

#: Columns at most; then two neighbours become one.
MOST: Final = 180
_MINUTE_NS: Final = 60_000_000_000


@dataclass(slots=True)
class Column:
    """What was counted in a column's time: latencies of all calls, ns of waiting by reason, failures by class."""

    latencies: Histogram = field(default_factory=Histogram)
    waited_ns: Counter[str] = field(default_factory=Counter)
    failures: Counter[Class] = field(default_factory=Counter)
    lost: int = 0

    def add(self, more: Column) -> None:
        """Add what another one has."""
        self.latencies += more.latencies
        self.waited_ns.update(more.waited_ns)
        self.failures.update(more.failures)
        self.lost += more.lost


class Timescale:
    """Takes minutes, in any order; each counts where it ends."""

    def __init__(self) -> None:
        self.minutes = 1
        self._columns: dict[int, Column] = {}

    def add(self, minute: Minute) -> None:
        """Take in a minute."""
        index = (minute.time_ns - 1) // self.width_ns
        self._columns.setdefault(index, Column()).add(_column(minute.counts))
        while max(self._columns) - min(self._columns) >= MOST:
            self.minutes *= 2
            halves, self._columns = self._columns, {}
            for at, column in halves.items():
                self._columns.setdefault(at // 2, Column()).add(column)

    @property
    def width_ns(self) -> int:
        """Return how long a column's time is."""
        return self.minutes * _MINUTE_NS

    @property
    def begins_ns(self) -> int:
        """Return when the first column's time begins, by the wall clock; 0 where there is none."""
        return min(self._columns, default=0) * self.width_ns

    def columns(self) -> list[Column | None]:
        """Return the columns from the first to the last; None where nothing is recorded."""
        if not self._columns:
            return []
        return [self._columns.get(at) for at in range(min(self._columns), max(self._columns) + 1)]


def _column(counts: Snapshot) -> Column:
    column = Column(sum(counts.calls.values(), Histogram()), lost=sum(counts.lost.values()))
    if asked(counts.waits):
        for series, time in counts.waits.items():
            column.waited_ns[series.reason.value] += time.ns
    if asked(counts.failures):
        for of, number in counts.failures.items():
            column.failures[of.kind] += number
    return column
