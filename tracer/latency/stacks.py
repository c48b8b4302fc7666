"""Where in the kernel calls wait: the stacks of those in flight, looked at again and again."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tracer.host.stacks import host_stack
from tracer.latency.stuck import reason_at
from tracer.model.calls import CallEvent
from tracer.model.waits import InFlight

if TYPE_CHECKING:
    from tracer.session import Session

#: Between two looks.
EVERY_S: Final = 0.02
#: A call is told of when its page table entry was made writable, which its task, preempted, may do later.
_EVENT_WITHIN_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, order=True)
class WaitStack:
    """Where calls of a handler on a filesystem were: functions, the innermost first; empty on the CPU.

    ``mountpoint`` and ``dev`` as in ``Series``; ``reason`` is a wait or ``cpu``.
    """

    fstype: str
    mountpoint: str
    dev: int
    handler: str
    reason: str
    stack: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """For how long a stack was seen, in ns: each look stands for the time since the one before."""

    where: WaitStack
    looks: int
    ns: int


@dataclass(frozen=True, slots=True)
class Slow:
    """A slow call and the stack that it was seen in for most of its time; empty if it never was."""

    event: CallEvent
    stack: tuple[str, ...] = ()


_Call = tuple[int, int, int, int]


@dataclass(slots=True)
class _Seen:
    """How old a call was at the last look, and for how many ns it was in each stack."""

    age_ns: int = 0
    stacks: Counter[tuple[str, ...]] = field(default_factory=Counter)


class StackSampler:
    """Sums up what is seen. Waits shorter than the time between looks are seen by chance, in their proportion."""

    def __init__(self) -> None:
        self._looked_ns = time.monotonic_ns()
        self._looks: Counter[WaitStack] = Counter()
        self._ns: Counter[WaitStack] = Counter()
        #: Of the calls that were in flight at the last look; of others, when they were found to be over, too.
        self._calls: dict[_Call, _Seen] = {}
        self._ended: dict[_Call, tuple[int, _Seen]] = {}

    def look(self, session: Session) -> None:
        """Look at the calls in flight now; ``session`` is one with waits."""
        now = time.monotonic_ns()
        since_ns, self._looked_ns = now - self._looked_ns, now
        calls: dict[_Call, _Seen] = {}
        for call in session.in_flight():
            stack = host_stack(call.pid, call.tid)
            where = WaitStack(call.fstype, call.mountpoint, call.dev, call.handler, reason_at(call, stack), stack)
            ns = min(since_ns, call.age_ns)
            self._looks[where] += 1
            self._ns[where] += ns
            known = self._calls.get(_identity(call))
            if known is None or known.age_ns > call.age_ns:  # another call of the same task for the same page
                known = _Seen()
            known.age_ns = call.age_ns
            known.stacks[stack] += ns
            calls[_identity(call)] = known
        self._ended = {key: ended for key, ended in self._ended.items() if now - ended[0] < _EVENT_WITHIN_NS}
        self._ended.update((key, (now, seen)) for key, seen in self._calls.items() if key not in calls)
        self._calls = calls

    def seen(self) -> list[Seen]:
        """Return what was seen so far, for the longest time first."""
        found = [Seen(where, self._looks[where], ns) for where, ns in self._ns.items()]
        return sorted(found, key=lambda one: (-one.ns, one.where))

    def slow(self, event: CallEvent) -> Slow:
        """Return a call that has just returned, with its stack."""
        key = _identity(event)
        seen = self._ended.pop(key, (0, None))[1] or self._calls.get(key)
        # Of a call that was older when it was seen than this one became, nothing is known but the place.
        known = seen is not None and seen.age_ns <= event.latency_ns
        return Slow(event, seen.stacks.most_common(1)[0][0] if seen and known else ())


def _identity(call: InFlight | CallEvent) -> _Call:
    return call.tid, call.dev, call.inode, call.offset
