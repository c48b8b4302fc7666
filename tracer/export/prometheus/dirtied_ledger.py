"""What was dirtied through mappings, by filesystem; ``place_ledger`` keeps the numbers."""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Final

from tracer.export.prometheus.place_ledger import MountLabels, PlaceLedger
from tracer.model.calls import Outcome, Series
from tracer.model.histogram import Histogram
from tracer.text import printable

#: What a fault makes writable, and page_mkwrite is asked for (struct vm_fault in include/linux/mm.h).
_PAGE: Final = mmap.PAGESIZE
_ALL: Final = ()


class DirtiedLedger:
    """Bytes on at most ``max_places`` filesystems.

    A call that ends ``writable`` is one page that is dirty now: the kernel counts it so in fault_dirty_shared_page
    (mm/memory.c), which runs only when the page table entry was made writable. A DAX mapping has no page of the page
    cache: the kernel counts none of its bytes as dirty, and neither does this.
    """

    def __init__(self, max_places: int) -> None:
        self._ledger: PlaceLedger[tuple[()]] = PlaceLedger(max_places)

    def counts(self, places: Iterable[MountLabels]) -> Iterator[tuple[MountLabels, int]]:
        """Bytes by filesystem, and zeros for ``places``."""
        for place, _, pages in self._ledger.counts(places, [_ALL]):
            yield place, pages * _PAGE

    def add(self, calls: Mapping[Series, Histogram], mounted: Set[str]) -> None:
        """Take in new calls; ``mounted`` are the mount points that there are now."""
        pages: Counter[tuple[MountLabels, tuple[()]]] = Counter()
        for series, histogram in calls.items():
            if series.outcome is Outcome.WRITABLE and not series.path.dax:
                pages[MountLabels(printable(series.fstype), printable(series.mountpoint)), _ALL] += histogram.count
        self._ledger.add(pages, mounted)
