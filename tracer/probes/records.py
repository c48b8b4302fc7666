"""Records that the BPF programs keep, as Python has them. Layouts come from the compiled object."""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from tracer.model.calls import Filesystem
from tracer.model.histogram import BUCKETS, LOWER_NS, Histogram
from tracer.model.waits import Wait
from tracer.probes.abi import GENERATIONS, generation_in, with_generation

_COUNTS: Final = struct.Struct(f"<{BUCKETS}Q")
#: struct series of bpf/maps.h.
SERIES: Final = struct.Struct("<QQII")


class RawSeries(NamedTuple):
    """struct series of bpf/maps.h."""

    handler: int
    who: int
    dev: int
    kind: int

    @property
    def filesystem(self) -> Filesystem:
        """Whose calls they are."""
        return Filesystem(self.dev, generation_in(self.kind))

    def of(self, generation: int) -> RawSeries:
        """Return the same with the generation that it lacks in a slot and in a front cell."""
        return self._replace(kind=with_generation(self.kind, generation))


class RawWait(NamedTuple):
    """struct wait_key of bpf/wait.h, its reason by name."""

    handler: int
    filesystem: Filesystem
    reason: Wait


class Number(NamedTuple):
    """What a device number stands for, and when the filesystem that had it before ended (struct number)."""

    ended_ns: int
    generation: int

    def at(self, ns: int) -> int:
        """Return the generation of a call that began then."""
        return self.generation - (ns < self.ended_ns) & GENERATIONS


class Slot(NamedTuple):
    """A call in flight: ``series.kind`` is 0 while the handler runs."""

    task: int
    start_ns: int
    latency_ns: int
    series: RawSeries


class Cells:
    """Sums cells of the same series. Histograms are added as big integers: exact, and 128 counts at a time."""

    def __init__(self, cell: Any) -> None:
        self._series = cell.series.offset
        self._sums = struct.Struct("<QQ")
        self._sum = cell.sum_ns.offset
        self._generation = cell.generation.offset
        self._buckets = cell.buckets.offset
        self._totals: dict[RawSeries, list[int]] = {}

    def add(self, data: bytes) -> None:
        """One cell as the kernel keeps it. A sum cannot carry into the next count: counts stay below 2**63."""
        key = self.series(data)
        sum_ns, max_ns = self._sums.unpack_from(data, self._sum)
        counts = int.from_bytes(data[self._buckets : self._buckets + _COUNTS.size], "little")
        known = self._totals.setdefault(key, [0, 0, 0])
        known[0] += counts
        known[1] += sum_ns
        known[2] = max(known[2], max_ns)

    def series(self, data: bytes) -> RawSeries:
        """Return the series of a cell, with its generation."""
        generation = int.from_bytes(data[self._generation : self._generation + 8], "little")
        return RawSeries(*SERIES.unpack_from(data, self._series)).of(generation)

    def histograms(self) -> dict[RawSeries, Histogram]:
        """Return the sums. The largest latency is at least the bound of the highest bucket (see count_shared)."""
        result = {}
        for key, (counts, sum_ns, max_ns) in self._totals.items():
            buckets = _COUNTS.unpack(counts.to_bytes(_COUNTS.size, "little"))
            if sum_ns:
                top = max((i for i, n in enumerate(buckets) if n), default=0)
                max_ns = max(max_ns, LOWER_NS[top])
            result[key] = Histogram(buckets, sum_ns, max_ns)
        return result
