"""Calls of page_mkwrite as types: what one is counted by, and one that is told by itself. No I/O.

Times are nanoseconds. Strings that come from traced programs (comm, file names) are ``str`` decoded with
``surrogateescape``; whoever prints them escapes them (see ``tracer.text``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple

from tracer.model.waits import Wait


class FaultPath(StrEnum):
    """How the fault came to page_mkwrite; or, in a DAX mapping, which function was asked in its place."""

    FIRST_WRITE = "first_write"
    WRITE_PROTECT = "write_protect"
    DAX_FAULT = "dax_fault"
    DAX_HUGE_FAULT = "dax_huge_fault"
    PFN_MKWRITE = "pfn_mkwrite"

    @property
    def dax(self) -> bool:
        """Whether storage was mapped, not a page of the page cache."""
        return self not in _OF_PAGES


_OF_PAGES = frozenset({FaultPath.FIRST_WRITE, FaultPath.WRITE_PROTECT})


class Initiator(StrEnum):
    """Who wrote: an instruction in user space, a system call, or another process (GUP)."""

    USER = "user"
    KERNEL = "kernel"
    REMOTE = "remote"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """What came of a call."""

    WRITABLE = "writable"
    RACED = "raced"
    RETRY = "retry"
    NOPAGE = "nopage"
    SIGBUS = "sigbus"
    OOM = "oom"
    HWPOISON = "hwpoison"
    OTHER = "other"

    @property
    def failed(self) -> bool:
        """Whether the call was refused: the fault did not end writable nor with a retry."""
        return self in _FAILED


_FAILED = frozenset({Outcome.SIGBUS, Outcome.OOM, Outcome.HWPOISON, Outcome.OTHER})


class WpOutcome(StrEnum):
    """What came of a run of do_wp_page."""

    SHARED = "shared"
    REUSED = "reused"
    COPIED = "copied"
    UNCHANGED = "unchanged"
    FAILED = "failed"


def device_name(dev: int) -> str:
    """``major:minor`` of a device number in the kernel's encoding (include/linux/kdev_t.h)."""
    return f"{dev >> 20}:{dev & 0xFFFFF}"


def device_number(name: str) -> int:
    """Return the device number that ``device_name`` gave this name; raises ValueError for what is none."""
    major, _, minor = name.partition(":")
    return int(major) << 20 | int(minor)


class Filesystem(NamedTuple):
    """Which filesystem a device number stands for: the kernel gives a number to another as soon as one has ended.

    ``generation`` counts those that had the number and have ended since the session began.
    """

    dev: int
    generation: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """What tells one stream of calls from another.

    ``dev`` is the superblock's s_dev in the kernel's encoding, 0 for a mapping without a file.
    ``mountpoint`` is empty when no mount of the device is visible from here. ``who`` is the label asked for
    by ``By``: "comm[pid]", a file's path or a cgroup's path; else empty. ``source`` is what is mounted, such as
    "server:/export". ``generation`` as in ``Filesystem``.
    """

    fstype: str
    mountpoint: str
    dev: int
    handler: str
    path: FaultPath
    outcome: Outcome
    initiator: Initiator
    who: str = ""
    source: str = ""
    generation: int = 0

    @property
    def nameless(self) -> Series:
        """What stays the same whatever is mounted where, and from where."""
        return replace(self, fstype="", mountpoint="", source="")


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One call that a person will read: one slower than asked for. For those that failed, see ``model.failures``.

    ``time_ns`` is the wall clock (CLOCK_REALTIME) at the call's return, ``file`` the path by dentry walk as the task
    sees it ("" if unknown; ``deleted`` if it was unlinked), ``offset`` the page's byte offset in the file and
    ``address`` the faulting page's address. ``pid`` is the process (tgid), ``tid`` the thread.
    """

    time_ns: int
    pid: int
    tid: int
    uid: int
    comm: str
    cgroup_id: int
    fstype: str
    mountpoint: str
    dev: int
    inode: int
    file: str
    deleted: bool
    handler: str
    path: FaultPath
    initiator: Initiator
    outcome: Outcome
    offset: int
    address: int
    latency_ns: int
    vm_fault: int
    source: str = ""
    #: ns by reason, those above 0; what they leave of the latency was on the CPU, or ready to run.
    waits: Mapping[Wait, int] = field(default_factory=dict)
    #: ns that the fault was throttled for after the call; then the latency is 0 if the call was told of before.
    throttled_ns: int = 0

    @property
    def took_ns(self) -> int:
        """The call's latency, and the throttling after it."""
        return self.latency_ns + self.throttled_ns
