"""The vocabulary of waits as types: for what, whose, how long; and the call that has not returned. Times are ns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class Wait(StrEnum):
    """What a call waits for, in the order of bpf/wait.h. ``throttle`` comes after the call, in the same fault."""

    FREEZE = "freeze"
    JOURNAL = "journal"
    WRITEBACK = "writeback"
    SPACE = "space"
    LOCK = "lock"
    SERVER = "server"
    CACHE = "cache"
    RECLAIM = "reclaim"
    THROTTLE = "throttle"
    OTHER = "other"


@dataclass(frozen=True, slots=True, order=True)
class WaitSeries:
    """Whose waits are summed, and for what. ``mountpoint``, ``dev`` and ``generation`` as in ``Series``."""

    fstype: str
    mountpoint: str
    dev: int
    handler: str
    reason: Wait
    generation: int = 0

    @property
    def nameless(self) -> WaitSeries:
        """As ``tracer.model.Series`` has it."""
        return replace(self, fstype="", mountpoint="")


@dataclass(frozen=True, slots=True)
class WaitTime:
    """Calls that waited, how long together and the longest of them, in ns."""

    count: int = 0
    ns: int = 0
    max_ns: int = 0

    def __add__(self, other: WaitTime) -> WaitTime:
        return WaitTime(self.count + other.count, self.ns + other.ns, max(self.max_ns, other.max_ns))

    def since(self, earlier: WaitTime | None) -> WaitTime:
        """Return what came after ``earlier``; the longest is that of all time."""
        return self if earlier is None else WaitTime(self.count - earlier.count, self.ns - earlier.ns, self.max_ns)


@dataclass(frozen=True, slots=True)
class InFlight:
    """A call that has not returned yet, as it was ``age_ns`` after it began; ``reason``: what it waits for then.

    ``reason`` is None where that has no name. The other members are as in ``CallEvent``.
    """

    age_ns: int
    pid: int
    tid: int
    comm: str
    fstype: str
    mountpoint: str
    dev: int
    inode: int
    file: str
    handler: str
    offset: int
    reason: Wait | None
