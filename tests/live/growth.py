"""What this process has, and whether it grows without end, whatever it needs at first or now and then."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

#: Of a series. That none of so many is less than the one before by accident has odds of one to 40,000.
PARTS = 8


def keeps_growing(samples: Sequence[int]) -> bool:
    """Whether the samples rise from each part of the series to the next, as what is leaked does.

    What settles at a size is level at the end, and what comes and goes falls now and then.
    """
    number = min(PARTS, len(samples))
    bounds = [len(samples) * part // number for part in range(number + 1)]
    return all(
        median(samples[begin:middle]) < median(samples[middle:end])
        for (begin, middle), (_, end) in pairwise(pairwise(bounds))
    )


def own_state() -> tuple[int, int, int]:
    """Descriptors, threads and children of this process."""
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        len(list(Path("/proc/self/task").iterdir())),
        len(Path("/proc/thread-self/children").read_text().split()),
    )


def resident_kib() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4
