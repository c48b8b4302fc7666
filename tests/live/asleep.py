"""For how long a task has slept for certain, however unevenly a busy machine shares its time out."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

#: Long beside nothing: what is imposed is measured, and compared with in one direction only.
HELD_NS = 300_000_000
_PAUSE_S = 0.02


class _Look(NamedTuple):
    """What identifies one sleep: a task that neither left the CPU nor came to it meanwhile sleeps on."""

    asleep: bool
    left: int
    came: int


class Asleep:
    """Watches a task of this host, and adds up the time between looks that met it in one and the same sleep."""

    def __init__(self, pid: int) -> None:
        self._task = Path("/proc", str(pid), "task", str(pid))
        self._last: _Look | None = None
        self._since_ns = 0
        #: Of the present sleep, and of all.
        self.now_ns = self.ns = 0

    def look(self) -> None:
        """Look at the task now."""
        began = time.monotonic_ns()
        found = self._found()
        if found.asleep and found == self._last:
            self.ns += began - self._since_ns
            self.now_ns += began - self._since_ns
        else:
            self.now_ns = 0
        self._last, self._since_ns = found, time.monotonic_ns()

    def for_ns(self, ns: int = HELD_NS, *, over: Callable[[], bool] = lambda: False, at_a_stretch: bool = True) -> int:
        """Watch until the present sleep has lasted for ``ns``, or all together have; how long, 0 if ``over`` before."""
        while (slept := self.now_ns if at_a_stretch else self.ns) < ns:
            if over():
                return 0
            time.sleep(_PAUSE_S)
            self.look()
        return slept

    def _found(self) -> _Look:
        """Uninterruptible sleep, the number of sleeps (nvcsw), and that of arrivals on a CPU (pcount)."""
        fields = (self._task / "status").read_text().partition("\nvoluntary_ctxt_switches:")[2].split()
        state = (self._task / "stat").read_text().rpartition(")")[2].split()[0]
        return _Look(state == "D", int(fields[0]), int((self._task / "schedstat").read_text().split()[2]))


def rounds(pid: int, number: int) -> None:
    """Wait until a process has gone to sleep so often; one that looks, and sleeps, has looked since then."""
    status = Path(f"/proc/{pid}/status")

    def slept() -> int:
        return int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])

    end = slept() + number
    while slept() < end:
        time.sleep(_PAUSE_S)
