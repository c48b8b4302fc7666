"""From failures as they come to reports: each explained, and those that repeat told once and then counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from tracer.diagnosis.diagnose import Diagnosis, diagnose
from tracer.host.state import StateReader
from tracer.model.failures import Burst, Failure
from tracer.model.host_state import HostState

#: Kinds of failures that are remembered; the kernel knows the last 4,096.
_KNOWN: Final = 8192


@dataclass(frozen=True, slots=True)
class Explained:
    """A failure, what the host was like then, and what follows from both."""

    failure: Failure
    state: HostState
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class Repeated:
    """``count`` more failures like one that was explained before: the same process, file and cause.

    They came in ``elapsed_ns``, since the last time that this was told; ``total`` counts them all, the first included.
    """

    first: Explained
    count: int
    total: int
    elapsed_ns: int


class Explainer:
    """Explains the first failure of each kind and counts the others."""

    def __init__(self, has_ended: Callable[[Failure], bool]) -> None:
        """``has_ended`` as in ``StateReader``: ``Session.has_ended``."""
        self._reader = StateReader(has_ended)
        self._known: dict[Burst, Explained] = {}
        #: How many were told of, and when.
        self._told: dict[Burst, tuple[int, int]] = {}

    def explain(self, failures: Iterable[Failure]) -> Iterator[Explained]:
        """Those failures that are the first of their kind, explained at once: the host does not wait."""
        for failure in failures:
            kind = failure.burst
            if kind in self._known:
                continue
            state = self._reader.read(failure)
            self._known[kind] = Explained(failure, state, diagnose(failure, state))
            self._told[kind] = 1, time.monotonic_ns()
            yield self._known[kind]

    def repeats(self, seen: dict[Burst, int]) -> Iterator[Repeated]:
        """What has been counted since the last time; ``seen`` are the kernel's counts (``Session.bursts``).

        What the kernel has forgotten begins anew when it comes again.
        """
        if len(self._known) > _KNOWN:
            self._known = {kind: explained for kind, explained in self._known.items() if kind in seen}
            self._told = {kind: self._told[kind] for kind in self._known}
        for kind, count in seen.items():
            if kind not in self._known:
                continue
            (told, told_ns), now = self._told[kind], time.monotonic_ns()
            if count > told:
                self._told[kind] = count, now
                yield Repeated(self._known[kind], count - told, count, now - told_ns)
