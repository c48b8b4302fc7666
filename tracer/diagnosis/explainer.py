"""From failures as they come to reports: each incident is explained once, and what else belongs to it is counted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from tracer.diagnosis.diagnose import Diagnosis, diagnose
from tracer.host.state import StateReader
from tracer.model.failures import AGAIN_NS, Burst, Disposition, Failure, FailureSource
from tracer.model.host_state import HostState
from tracer.model.writeback import FileLoss, FileLosses, LostFile, Told, file_of

#: Processes, files and causes that are remembered; the kernel knows the last 4,096.
_KNOWN: Final = 8192
#: Incidents, and processes that met a fault, that are remembered.
_INCIDENTS: Final = 1024
#: Victims that a count names, and processes and files of an incident that are told apart.
_NAMED: Final = 3
_TOLD_APART: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Again:
    """The report of the fault whose SIGBUS a process sends to itself again; ``of_child``: that a child died of."""

    first: Explained
    of_child: bool


@dataclass(frozen=True, slots=True)
class Explained:
    """A failure, what the host was like then, and what follows from both.

    ``again``: it repeats one told before. ``loss``: of a failure at writeback, what had been lost of the file by then,
    and who had been told.
    """

    failure: Failure
    state: HostState
    diagnosis: Diagnosis
    again: Again | None = None
    loss: FileLoss | None = None


@dataclass(frozen=True, slots=True)
class Repeated:
    """``count`` more failures of an incident that was explained before.

    They came in ``elapsed_ns``, since the last time that this was told; ``total`` counts them all, the first included,
    of ``processes`` processes and ``files`` files. ``last`` are the last victims, the very last at the end. ``other``:
    on files that were not told of, since there were too many reports.
    """

    first: Explained
    count: int
    total: int
    elapsed_ns: int
    last: tuple[Failure, ...] = ()
    processes: int = 1
    files: int = 1
    other: bool = False


class Rate:
    """So many at once, and so many a second after that."""

    def __init__(self, most: int, per_s: float) -> None:
        self._left = float(most)
        self._most = most
        self._per_ns = per_s / 1e9
        self._at_ns = time.monotonic_ns()

    def take(self, now_ns: int) -> bool:
        """Whether there is one left; it is taken."""
        self._left = min(self._most, self._left + max(0, now_ns - self._at_ns) * self._per_ns)
        self._at_ns = now_ns
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(slots=True)
class _Incident:
    """Failures of one cause. ``untold`` have not been told of yet; ``total`` are those that have."""

    first: Explained
    told_ns: int
    other: bool = False
    total: int = 0
    untold: int = 0
    pids: set[int] = field(default_factory=set)
    inodes: set[int] = field(default_factory=set)
    last: deque[Failure] = field(default_factory=lambda: deque(maxlen=_NAMED))

    def meet(self, failure: Failure) -> None:
        """One that was told of by the kernel; the last one of a process stands for it."""
        for seen, one in ((self.pids, failure.pid), (self.inodes, failure.inode)):
            if len(seen) < _TOLD_APART:
                seen.add(one)
        for victim in [victim for victim in self.last if victim.pid == failure.pid]:
            self.last.remove(victim)
        self.last.append(failure)

    def repeated(self, now_ns: int) -> Repeated:
        """Return what has not been told of; it has been now."""
        count, elapsed_ns, self.untold, self.told_ns = self.untold, now_ns - self.told_ns, 0, now_ns
        self.total += count
        pids, files, last = len(self.pids), len(self.inodes), tuple(self.last)
        return Repeated(self.first, count, self.total, elapsed_ns, last, pids, files, self.other)


@dataclass(frozen=True, slots=True)
class Notified:
    """Programs were told of a loss at writeback that was explained before: ``told`` has the first, and how many.

    None: nobody was, and nobody will be.
    """

    first: Explained
    loss: FileLoss
    told: Told | None


class Explainer:
    """Explains the first failure of each incident and counts the others, whichever process meets them.

    Whole reports are 20 at once, and one a second after that; a flood of other files is counted by filesystem.
    """

    def __init__(
        self, has_ended: Callable[[Failure], bool], every: bool = False, losses: Callable[[], FileLosses] = dict
    ) -> None:
        """``has_ended`` as in ``StateReader``: ``Session.has_ended``; ``losses``: ``Session.file_losses``.

        ``every``: explain the first failure of each process, file and cause, up to 100 at once and 100 a second.
        """
        self._reader = StateReader(has_ended)
        self._rate = Rate(100, 100.0) if every else Rate(20, 1.0)
        self._every = every
        self._incidents: dict[Hashable, _Incident] = {}
        #: How many of a burst were counted or told, and what it belongs to.
        self._bursts: dict[Burst, tuple[int, _Incident]] = {}
        #: The last fault of a process, and of the last child that died of one.
        self._faults: dict[tuple[bool, int], tuple[int, Explained]] = {}
        self._losses = losses
        #: Files whose losses were explained, what was told of each by then, and when.
        self._lost: dict[LostFile, tuple[Explained, FileLoss, int]] = {}

    def explain(self, failures: Iterable[Failure]) -> Iterator[Explained]:
        """Those failures that are to be told, explained at once: the host does not wait."""
        for failure in failures:
            told, incident = self._bursts.get(failure.burst, (0, None))
            explained = None
            if incident is None:
                explained, incident = self._begin(failure, time.monotonic_ns())
                self._bursts[failure.burst] = told + 1, incident
                incident.total += explained is not None
                incident.untold += explained is None
            incident.meet(failure)
            self._note(failure, incident.first)
            if explained:
                yield explained

    def _begin(self, failure: Failure, now_ns: int) -> tuple[Explained | None, _Incident]:
        """Return the incident that a burst belongs to, and what is to be told of this failure."""
        again = self._again(failure)
        key = ("again", again.first.failure.time_ns, again.of_child) if again else cause_of(failure)
        known = self._incidents.pop(key, None)
        tell = (self._every or known is None) and self._rate.take(now_ns)
        if known is None and not tell:
            key = _without_file(failure)
            known = self._incidents.pop(key, None)
        explained = self._explained(failure, again, tell) if tell or known is None else None
        if known is None:
            assert explained is not None
            known = _Incident(explained, now_ns, other=not tell)
        self._incidents[key] = known
        if len(self._incidents) > _INCIDENTS:
            del self._incidents[next(iter(self._incidents))]
        return (explained if tell else None), known

    def _explained(self, failure: Failure, again: Again | None, tell: bool) -> Explained:
        state = self._reader.read(failure) if tell and not again else HostState()
        explained = Explained(failure, state, diagnose(failure, state), again)
        return self._with_loss(explained) if tell and failure.source is FailureSource.WRITEBACK else explained

    def _again(self, failure: Failure) -> Again | None:
        """Return the fault that a signal which a process sends to itself repeats."""
        signal = failure.signal
        if failure.source is not FailureSource.SIGNAL or signal is None or not signal.sender:
            return None
        if not signal.code.sent or signal.sender.pid != failure.pid:
            return None
        for of_child in (False, True):
            time_ns, first = self._faults.get((of_child, failure.pid), (0, None))
            if first and 0 <= failure.time_ns - time_ns <= AGAIN_NS:
                return Again(first.again.first if first.again else first, of_child)
        return None

    def _note(self, failure: Failure, first: Explained) -> None:
        """Remember who met a fault: the signal may be raised again."""
        if failure.signal is None or (failure.signal.code.sent and not first.again):
            return
        keys = [(False, failure.pid)]
        if failure.signal.disposition is Disposition.FATAL and failure.parent:
            keys.append((True, failure.parent))
        for key in keys:
            self._faults.pop(key, None)
            self._faults[key] = failure.time_ns, first
        while len(self._faults) > _INCIDENTS:
            del self._faults[next(iter(self._faults))]

    def _with_loss(self, explained: Explained) -> Explained:
        file = file_of(explained.failure)
        if loss := self._losses().get(file):
            explained = replace(explained, loss=loss)
            self._lost[file] = explained, loss, time.monotonic_ns()
        return explained

    def updates(self) -> Iterator[Repeated | Notified]:
        """Yield what more was lost at writeback, and who was told, since it was explained, or since the last time."""
        if not self._lost:
            return
        losses, now = self._losses(), time.monotonic_ns()
        self._lost = {file: known for file, known in self._lost.items() if file in losses}
        for file, (first, before, before_ns) in self._lost.items():
            if (loss := losses[file]) == before:
                continue
            self._lost[file] = first, loss, now
            if loss.errors > before.errors:
                last = (replace(first.failure, time_ns=loss.last_ns),)
                yield Repeated(first, loss.errors - before.errors, loss.errors, now - before_ns, last)
            if loss.told and loss.told != before.told:
                yield Notified(first, loss, loss.told)
            if loss.forgotten_ns != before.forgotten_ns:
                yield Notified(first, loss, None)

    def repeats(self, seen: dict[Burst, int]) -> Iterator[Repeated]:
        """Yield what has been counted since the last time; ``seen`` are the kernel's counts (``Session.bursts``).

        What the kernel has forgotten begins anew when it comes again: it is another burst.
        """
        for burst, count in seen.items():
            if burst in self._bursts:
                told, incident = self._bursts[burst]
                incident.untold += max(0, count - told)
                self._bursts[burst] = max(told, count), incident
        if len(self._bursts) > _KNOWN:
            self._bursts = {burst: counted for burst, counted in self._bursts.items() if burst in seen}
        now_ns = time.monotonic_ns()
        # Files that lost writes are counted whole: updates().
        for incident in [one for one in self._incidents.values() if one.untold and one.first.loss is None]:
            yield incident.repeated(now_ns)


def cause_of(failure: Failure) -> Hashable:
    """Return what failures of one incident have in common: file, class, errno; or signal, sender and program."""
    signal = failure.signal
    if failure.source is FailureSource.SIGNAL and signal:
        sender = "" if signal.sender is None else signal.sender.pid != failure.pid and signal.sender.comm
        return signal.code, sender, failure.comm
    return failure.dev, failure.generation, failure.inode, failure.verdict[:2]


def _without_file(failure: Failure) -> Hashable:
    """Return the same without file or program: what many incidents at once are counted by."""
    code = failure.signal.code if failure.source is FailureSource.SIGNAL and failure.signal else None
    return "other", failure.dev, failure.generation, failure.verdict[:2], code
