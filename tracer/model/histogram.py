"""The latency histogram that the BPF programs fill: its buckets and its arithmetic.

The buckets are those of a Prometheus native histogram of schema 2: four to an octave, at 2**(k/4).
A percentile read from it is therefore within 9.1 % of the true value. ``bpf/histogram.h`` computes the
same index with the same integer thresholds.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from math import exp2
from typing import Final

#: Buckets in a histogram; the last one has no upper bound.
BUCKETS: Final = 128
#: Latencies below 2**FIRST_EXPONENT ns fall into bucket 0.
FIRST_EXPONENT: Final = 6
#: 2**(16 + k/4) for k = 0..3, rounded: where the four buckets of an octave begin, in 1/65536 of the octave.
QUARTERS: Final = (65536, 77936, 92682, 110218)


def _lower_bounds() -> tuple[int, ...]:
    bounds = [0]
    for index in range(BUCKETS - 1):
        octave, quarter = divmod(index, 4)
        bounds.append(-(-(QUARTERS[quarter] << octave) >> 10))
    return tuple(bounds)


#: ``LOWER_NS[i]`` is the smallest latency, in ns, that bucket i holds; bucket i ends before ``LOWER_NS[i + 1]``.
LOWER_NS: Final = _lower_bounds()


def bucket_of(ns: int) -> int:
    """Index of the bucket that holds a latency of ``ns`` nanoseconds."""
    return bisect_right(LOWER_NS, ns) - 1


@dataclass(frozen=True, slots=True)
class Histogram:
    """Latencies of one series: ``BUCKETS`` counts, their exact sum and the largest, in ns."""

    buckets: tuple[int, ...] = (0,) * BUCKETS
    sum_ns: int = 0
    max_ns: int = 0

    @classmethod
    def of(cls, *latencies_ns: int) -> Histogram:
        """Return a histogram of the given latencies."""
        buckets = [0] * BUCKETS
        for ns in latencies_ns:
            buckets[bucket_of(ns)] += 1
        return cls(tuple(buckets), sum(latencies_ns), max(latencies_ns, default=0))

    @property
    def count(self) -> int:
        """Number of latencies recorded."""
        return sum(self.buckets)

    @property
    def mean_ns(self) -> float:
        """Arithmetic mean in ns, exact; 0 when empty."""
        return self.sum_ns / count if (count := self.count) else 0.0

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(
            tuple(map(int.__add__, self.buckets, other.buckets)),
            self.sum_ns + other.sum_ns,
            max(self.max_ns, other.max_ns),
        )

    def since(self, earlier: Histogram) -> Histogram:
        """Return what was recorded after ``earlier``, an older state of the same series.

        The largest latency of an interval is known to its bucket only, unless it is a new record or the only one.
        """
        buckets = tuple(max(0, now - then) for now, then in zip(self.buckets, earlier.buckets, strict=True))
        top = max((i for i, n in enumerate(buckets) if n), default=None)
        if self.max_ns > earlier.max_ns or top == BUCKETS - 1:
            largest = self.max_ns
        else:
            largest = 0 if top is None else min(self.max_ns, upper_ns(top))
        sum_ns = max(0, self.sum_ns - earlier.sum_ns)
        return Histogram(buckets, sum_ns, min(largest, sum_ns))

    def quantile(self, q: float) -> float:
        """Return the latency in ns below which a share ``q`` (0..1) of the calls lies; 0.0 when empty.

        The geometric middle of that call's bucket, which nothing in the bucket is further from than 9.1 %; in the first
        bucket, which has no such middle, half its width. Never above the largest latency seen.
        """
        if not 0.0 <= q <= 1.0:
            raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
        count = self.count
        if not count:
            return 0.0
        rank = q * count
        below = 0
        for index, number in enumerate(self.buckets):
            if number and below + number >= rank:
                value = LOWER_NS[index] * exp2(1 / 8) if index else LOWER_NS[1] / 2
                return min(value, float(self.max_ns)) if self.max_ns else value
            below += number
        return float(self.max_ns)


def upper_ns(index: int) -> int:
    """Return the largest latency, in ns, that bucket ``index`` can hold (for the last one: twice its lower bound)."""
    return LOWER_NS[index + 1] - 1 if index + 1 < BUCKETS else 2 * LOWER_NS[index]
