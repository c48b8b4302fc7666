"""From recorded reports to what ``mkwrite sigbus`` prints: each incident once, then how many more there were."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tracer.diagnosis.explainer import Explained, Notified, Repeated, cause_of
from tracer.model.failures import Failure
from tracer.record.reports import explained_of, first_of, loss_of, victims_of

#: Victims that a count names.
_NAMED: Final = 3


@dataclass(slots=True)
class _Incident:
    first: Explained
    count: int = 0
    #: How many there had been before the span began, and more than its reports name.
    total: int = 1
    pids: set[int] = field(default_factory=set)
    inodes: set[int] = field(default_factory=set)
    processes: int = 0
    files: int = 0
    other: bool = False
    last: deque[Failure] = field(default_factory=lambda: deque(maxlen=_NAMED))

    def meet(self, failure: Failure) -> None:
        self.pids.add(failure.pid)
        if failure.inode:  # a count names the victims, not their files
            self.inodes.add(failure.inode)
        for victim in [victim for victim in self.last if victim.pid == failure.pid]:
            self.last.remove(victim)
        self.last.append(failure)

    def repeated(self) -> Repeated:
        elapsed_ns = max(0, self.last[-1].time_ns - self.first.failure.time_ns)
        processes, files = max(self.processes, len(self.pids)), max(self.files, len(self.inodes), 1)
        total = max(self.total, self.count + 1)
        return Repeated(self.first, self.count, total, elapsed_ns, tuple(self.last), processes, files, self.other)


class Incidents:
    """Takes the reports of a span, in order."""

    def __init__(self) -> None:
        self._incidents: dict[Hashable, _Incident] = {}
        #: By when and to whom the first failure happened: what a count, or a signal that is raised again, names.
        self._firsts: dict[tuple[int, int], Explained] = {}

    def explain(self, frames: Iterable[Mapping[str, Any]]) -> Iterator[Explained | Notified]:
        """Yield what is shown whole. Raises ValueError, KeyError or TypeError for a frame that is none."""
        for frame in frames:
            if frame["kind"] == "repeated":
                self._count(frame)
            elif frame["kind"] in ("told", "forgotten"):
                first, loss = self._firsts.get((frame["first_time_ns"], 0)), loss_of(frame["loss"])
                if first:
                    yield Notified(first, loss, loss.told if frame["kind"] == "told" else None)
            elif explained := self._report(frame):
                yield explained

    def repeats(self) -> Iterator[Repeated]:
        """How many more there were of each incident."""
        for incident in self._incidents.values():
            if incident.count:
                yield incident.repeated()

    def _report(self, frame: Mapping[str, Any]) -> Explained | None:
        """Return the report, unless one of its incident was shown."""
        again = frame["raised_again"]
        first = self._firsts.get((again["first_time_ns"], again["first_pid"])) if again else None
        explained = explained_of(frame, first)
        failure = explained.failure
        self._firsts[failure.time_ns, failure.pid] = explained
        key = ("again", again["first_time_ns"], again["of_child"]) if again else cause_of(failure)
        known = self._incidents.get(key)
        if known is None:
            known = self._incidents[key] = _Incident(explained)
            known.meet(failure)
            return explained
        known.count += 1
        known.meet(failure)
        return None

    def _count(self, frame: Mapping[str, Any]) -> None:
        named = frame["first_time_ns"], frame["pid"] or 0
        first = self._firsts.get(named) or first_of(frame)
        self._firsts[named] = first
        key = next((key for key, known in self._incidents.items() if known.first is first), named)
        known = self._incidents.setdefault(key, _Incident(first))
        known.count += int(frame["count"])
        known.total = max(known.total, int(frame["total"]))
        known.processes, known.files = int(frame["processes"]), int(frame["files"])
        known.other = bool(frame["other"])
        for victim in victims_of(frame):
            known.meet(victim)
