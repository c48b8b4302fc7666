"""Labels that are asked for: of the busiest processes, files or cgroups, and of containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracer.host.containers import container_of
from tracer.model.options import By
from tracer.text import printable

#: The value of a label that is not given: of a process that is not among the busiest, say.
OTHER: Final = "other"

#: A score is the calls of the past, each worth half as much after this time.
_HALF_LIFE_S: Final = 300.0
#: A newcomer takes a place when it is so many times as busy as the one who has it, lest they take turns.
_BUSIER: Final = 2.0
#: Below this score, nobody is busy.
_IDLE: Final = 0.5


class Busiest:
    """The ``places`` busiest of many, by calls with old ones counting less; those who are in stay for a while."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._scores: dict[str, float] = {}
        self._monotonic_ns = 0
        self._inside: set[str] = set()

    def __contains__(self, who: str) -> bool:
        return who in self._inside

    def note(self, calls: Mapping[str, int], monotonic_ns: int) -> None:
        """So many calls were made since the last time; ``monotonic_ns`` is now."""
        decay = 0.5 ** (max(0, monotonic_ns - self._monotonic_ns) / 1e9 / _HALF_LIFE_S)
        self._monotonic_ns = monotonic_ns
        scores = {who: score * decay for who, score in self._scores.items()}
        for who, number in calls.items():
            scores[who] = scores.get(who, 0.0) + number
        self._scores = {who: score for who, score in scores.items() if score >= _IDLE}
        self._inside &= self._scores.keys()
        self._admit()

    def _admit(self) -> None:
        waiting = sorted(self._scores.keys() - self._inside, key=lambda who: (self._scores[who], who))
        while waiting:
            if len(self._inside) >= self._places:
                least = min(self._inside, key=lambda who: (self._scores[who], who))
                if self._scores[waiting[-1]] <= _BUSIER * self._scores[least]:
                    return
                self._inside.remove(least)
            self._inside.add(waiting.pop())


class Who:
    """Which labels the option ``--by`` and ``--cgroups`` add, and their values."""

    def __init__(self, per: By | None = None, top: int = 20, containers: bool = False) -> None:
        self._busiest = Busiest(top) if per else None
        self._containers = containers
        self.labels: tuple[str, ...] = (
            *([per.value] if per else []),
            *(["container_id", "pod_uid"] if containers else []),
        )

    def note(self, calls: Mapping[str, int], monotonic_ns: int) -> None:
        """Add the calls since the last time, by ``Series.who``."""
        if self._busiest:
            self._busiest.note(calls, monotonic_ns)

    def values(self, who: str) -> tuple[str, ...]:
        """Values for ``labels``."""
        if self._busiest and who not in self._busiest:
            return self.others
        container = container_of(who) if self._containers else None
        return (
            *([printable(who)] if self._busiest else []),
            *([] if container is None else map(printable, container)),
        )

    @property
    def others(self) -> tuple[str, ...]:
        """The values of who is not told apart."""
        return (OTHER,) * len(self.labels)

    @property
    def nobody(self) -> tuple[str, ...]:
        """The values where nobody has called yet: not in the name of a container."""
        return self.others if self._busiest else ("",) * len(self.labels)
