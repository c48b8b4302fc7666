"""The vocabulary as types: series, snapshots, events, hooks. No I/O, no BCC.

Times are nanoseconds. Strings that come from traced programs (comm, file names) are kept as ``str`` decoded
with ``surrogateescape``; whoever prints them escapes them (see ``tracer.text``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from tracer.asked import asked
from tracer.earlier import Earlier
from tracer.errors import UsageError
from tracer.histogram import Histogram
from tracer.wait import Wait, WaitSeries, WaitTime

if TYPE_CHECKING:
    from tracer.failure import FailureSeries


class Path(StrEnum):
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


_OF_PAGES = frozenset({Path.FIRST_WRITE, Path.WRITE_PROTECT})


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


class Loss(StrEnum):
    """What the tracer missed, by kind; the docs say what each means and what to do about it."""

    SERIES_FULL = "series_full"
    INFLIGHT_FULL = "inflight_full"
    EVENTS_FULL = "events_full"
    UNMATCHED_ENTRY = "unmatched_entry"
    UNMATCHED_RETURN = "unmatched_return"
    MISSED_PROBE = "missed_probe"
    FILESYSTEMS_FULL = "filesystems_full"


class By(StrEnum):
    """A further label on every series, on demand."""

    PROCESS = "process"
    FILE = "file"
    CGROUP = "cgroup"


class Backend(StrEnum):
    """How hooks attach."""

    FENTRY = "fentry"
    KPROBE = "kprobe"
    TRACEPOINT = "tracepoint"


#: Those that hook functions, and so see calls.
FUNCTION_BACKENDS: Final = (Backend.FENTRY, Backend.KPROBE)


def device_name(dev: int) -> str:
    """``major:minor`` of a device number in the kernel's encoding (include/linux/kdev_t.h)."""
    return f"{dev >> 20}:{dev & 0xFFFFF}"


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
    path: Path
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
class Hook:
    """One place where the tracer attaches, whether it did, and how often the kernel skipped it."""

    name: str
    function: str
    backend: Backend
    attached: bool
    detail: str = ""
    missed: int = 0
    #: Not attached for want of a right, or of tracefs.
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Throttled:
    """Tasks made to pause since they dirtied pages of a device too fast: how often, how long, for how many bytes."""

    pauses: int = 0
    pause_ns: int = 0
    dirtied: int = 0

    def since(self, earlier: Throttled) -> Throttled:
        """What came after ``earlier``."""
        return Throttled(self.pauses - earlier.pauses, self.pause_ns - earlier.pause_ns, self.dirtied - earlier.dirtied)


@dataclass(frozen=True, slots=True)
class Tracepoints:
    """What is counted where no function can be hooked (see ``Backend.TRACEPOINT``).

    ``sigbus`` counts the signals that a task's own fault caused. ``wp_faults`` are page faults, by ``USER`` and
    ``KERNEL`` mode, of writes to pages that were present and not writable: those that the processor reported, whatever
    came of them. ``throttled`` is by the device's name in /sys/class/bdi.
    """

    sigbus: int
    wp_faults: Mapping[Initiator, int]
    throttled: Mapping[str, Throttled]

    def since(self, earlier: Tracepoints) -> Tracepoints:
        """What came after ``earlier``; devices without a pause in between are left out."""
        throttled = {
            name: now.since(earlier.throttled.get(name, Throttled()))
            for name, now in self.throttled.items()
            if now != earlier.throttled.get(name)
        }
        wp_faults = {mode: n - earlier.wp_faults.get(mode, 0) for mode, n in self.wp_faults.items()}
        return Tracepoints(self.sigbus - earlier.sigbus, wp_faults, throttled)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counts of a session at one moment: cumulative, or of an interval (see ``since``).

    ``time_ns`` is CLOCK_MONOTONIC; ``elapsed_ns`` the time that the counts cover. ``in_flight`` counts the calls
    that have not returned yet. ``lost`` and ``wp_faults`` hold every kind, zeros included. Using ``failures`` or
    ``waits`` raises UsageError where the session was not asked for them. ``gone``, ``gone_failures`` and
    ``gone_waits``: of ``calls``, ``failures`` and ``waits``, what later snapshots will not have any more (see
    ``Options.make_room``). ``runs``: by BPF program, how often it ran and for how many ns, where the kernel keeps count
    of that. With ``tracepoints`` there are no calls and no ``wp_faults``: nobody sees them.
    """

    time_ns: int
    elapsed_ns: int
    calls: Mapping[Series, Histogram]
    wp_faults: Mapping[WpOutcome, int]
    lost: Mapping[Loss, int]
    in_flight: int
    #: How long the oldest of them lasts, 0 if there is none.
    oldest_in_flight_ns: int = 0
    hooks: tuple[Hook, ...] = ()
    notes: tuple[str, ...] = ()
    failures: Mapping[FailureSeries, int] = field(default_factory=dict)
    tracepoints: Tracepoints | None = None
    gone: Mapping[Series, Histogram] = field(default_factory=dict)
    gone_failures: Mapping[FailureSeries, int] = field(default_factory=dict)
    gone_waits: Mapping[WaitSeries, WaitTime] = field(default_factory=dict)
    runs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    waits: Mapping[WaitSeries, WaitTime] = field(default_factory=dict)

    def since(self, earlier: Snapshot) -> Snapshot:
        """What happened between ``earlier`` and this snapshot; series without a call in between are left out."""
        calls = {}
        calls_before = Earlier(earlier.calls, self.calls)
        for series, histogram in self.calls.items():
            before = calls_before.get(series)
            delta = histogram if before is None else histogram.since(before)
            if delta.count:
                calls[series] = delta
        return replace(
            self,
            elapsed_ns=self.time_ns - earlier.time_ns,
            calls=calls,
            wp_faults={k: n - earlier.wp_faults.get(k, 0) for k, n in self.wp_faults.items()},
            lost={k: n - earlier.lost.get(k, 0) for k, n in self.lost.items()},
            failures=self._failures_since(earlier) if asked(self.failures) else self.failures,
            tracepoints=self.tracepoints and earlier.tracepoints and self.tracepoints.since(earlier.tracepoints),
            waits=self._waits_since(earlier) if asked(self.waits) else self.waits,
        )

    def _failures_since(self, earlier: Snapshot) -> dict[FailureSeries, int]:
        before = Earlier(earlier.failures, self.failures)
        return {key: more for key, n in self.failures.items() if (more := n - (before.get(key) or 0))}

    def _waits_since(self, earlier: Snapshot) -> dict[WaitSeries, WaitTime]:
        before = Earlier(earlier.waits, self.waits)
        return {key: more for key, time in self.waits.items() if (more := time.since(before.get(key))).count}

    def by_name(self) -> Snapshot:
        """What has the same names taken together: filesystems that had a device number and a place in turn."""
        calls = self.grouped(lambda series: replace(series, generation=0))
        failures: dict[FailureSeries, int] = {}
        for failure, number in self.failures.items() if asked(self.failures) else ():
            same = replace(failure, generation=0)
            failures[same] = failures.get(same, 0) + number
        waits: dict[WaitSeries, WaitTime] = {}
        for wait, time in self.waits.items() if asked(self.waits) else ():
            alike = replace(wait, generation=0)
            waits[alike] = waits.get(alike, WaitTime()) + time
        return replace(
            self,
            calls=calls,
            failures=failures if asked(self.failures) else self.failures,
            waits=waits if asked(self.waits) else self.waits,
        )

    def grouped(self, key: Callable[[Series], Series]) -> dict[Series, Histogram]:
        """Histograms merged under ``key(series)``, e.g. with the initiator left out."""
        merged: dict[Series, Histogram] = {}
        for series, histogram in self.calls.items():
            group = key(series)
            known = merged.get(group)
            merged[group] = histogram if known is None else known + histogram
        return merged

    @property
    def total_lost(self) -> int:
        """All losses together."""
        return sum(self.lost.values())


@dataclass(frozen=True, slots=True)
class CallEvent:
    """One call that a person will read: one slower than asked for. For calls that failed, see ``tracer.failure``.

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
    path: Path
    initiator: Initiator
    outcome: Outcome
    offset: int
    address: int
    latency_ns: int
    vm_fault: int
    source: str = ""
    #: ns by reason, those above 0; what they leave of the latency was on the CPU, or ready to run.
    waits: Mapping[Wait, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Filters:
    """What to trace; an empty tuple means all. Several values of one kind are alternatives.

    Raises UsageError for a value that is no tuple.
    """

    fs: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, tuple):  # a string would be taken for its letters
                raise UsageError(
                    f"Filters({one.name}={value!r}) is no tuple.", f"For one value, write Filters({one.name}=(value,))."
                )


@dataclass(frozen=True)  # no slots: the defaults are read from the class
class Options:
    """How a session traces. Raises UsageError for options that would do nothing together.

    ``slower_ns``: send an event for calls at least that slow. ``max_series``: room in the kernel for so many series,
    see docs/internals.md. ``failures``: tell of each, and count them by class and errno; a call that succeeds pays
    nothing for that, and without them a session starts faster. ``every_errno``: hook functions, too, that run at calls
    that succeed, where only they return an errno. ``make_room``: with By.PROCESS and By.CGROUP, once half of the room
    is used, a snapshot is the last one with the series of what is gone; the same holds for filesystems that have ended,
    however much room there is. For who adds snapshots up, see ``Snapshot.gone``. ``waits``: tell what calls waited for.
    """

    backend: Backend | None = None
    filters: Filters = field(default_factory=Filters)
    by: By | None = None
    slower_ns: int | None = None
    max_series: int = 4096
    failures: bool = True
    every_errno: bool = False
    make_room: bool = False
    waits: bool = False

    def __post_init__(self) -> None:
        of_calls = {
            "slower_ns": self.slower_ns is not None,
            "every_errno": self.every_errno,
            "waits": self.waits,
        }
        if self.backend is Backend.TRACEPOINT and (vain := [name for name, given in of_calls.items() if given]):
            raise UsageError(
                f"The tracepoint backend sees no calls, so {vain[0]} does nothing with it.",
                f"Leave {vain[0]} out, or choose another backend.",
            )
        if self.every_errno and not self.failures:
            raise UsageError("every_errno does nothing without failures.", "Leave every_errno or failures=False out.")
