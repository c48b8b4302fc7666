"""When something was by the wall clock, where the kernel said when it was by CLOCK_MONOTONIC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

#: What reading two clocks one after the other, and slewing, may be off by; more is a step.
_STEP_NS: Final = 1_000_000


class WallClock:
    """Follows the wall clock when it is set, but not the jitter of reading it: the order of moments is kept."""

    def __init__(
        self, real: Callable[[], int] = time.time_ns, monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._real = real
        self._monotonic = monotonic
        self._epoch_ns = real() - monotonic()

    def at(self, monotonic_ns: int) -> int:
        """CLOCK_REALTIME's time, in ns, of a moment of CLOCK_MONOTONIC, by the clock as it is set now."""
        epoch = self._real() - self._monotonic()
        if abs(epoch - self._epoch_ns) > _STEP_NS:
            self._epoch_ns = epoch
        return monotonic_ns + self._epoch_ns
