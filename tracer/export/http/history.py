"""The counts that the landing page looks back on: since the start, of the last seconds, of the last hour by minutes."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from tracer.model.histogram import Histogram
from tracer.model.snapshot import Snapshot

MINUTES: Final = 60
_MINUTE_NS: Final = 60_000_000_000


@dataclass(frozen=True, slots=True)
class Past:
    """One moment's look back.

    ``total`` counts from the start and ``recent`` since the reading before the last; ``minutes`` are the latencies of
    all calls in each of the last ``MINUTES``, the oldest first, the last one still growing. ``up``: whether the last
    reading succeeded.
    """

    up: bool
    total: Snapshot
    recent: Snapshot
    minutes: tuple[Histogram, ...]


class History:
    """Collects readings; safe to use from several threads."""

    def __init__(self, first: Snapshot) -> None:
        self._lock = threading.Lock()
        self._up = True
        self._total = first
        self._recent = first.since(first)
        self._minutes: dict[int, Histogram] = {}

    @property
    def up(self) -> bool:
        """Whether the last reading succeeded."""
        return self._up

    def add(self, snapshot: Snapshot | None) -> None:
        """Take in a reading; None for one that failed."""
        with self._lock:
            self._up = snapshot is not None
            if snapshot is None:
                return
            self._recent = snapshot.since(self._total)
            self._total = snapshot
            minute = snapshot.monotonic_ns // _MINUTE_NS
            latencies = sum(self._recent.calls.values(), self._minutes.get(minute, Histogram()))
            self._minutes = {m: h for m, h in self._minutes.items() if m > minute - MINUTES} | {minute: latencies}

    def past(self) -> Past:
        """Return what there is to see now."""
        with self._lock:
            last = self._total.monotonic_ns // _MINUTE_NS
            minutes = (self._minutes.get(m, Histogram()) for m in range(last - MINUTES + 1, last + 1))
            return Past(self._up, self._total, self._recent, tuple(minutes))
