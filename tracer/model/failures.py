"""What a refused fault or a SIGBUS is, as types. No I/O, no BCC; see ``tracer.model`` for units and strings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntFlag, StrEnum
from typing import Final, NamedTuple

from tracer.model.calls import CallEvent, FaultPath, Initiator, Outcome


class FailureSource(StrEnum):
    """Where a failure arose."""

    PAGE_MKWRITE = "page_mkwrite"
    FAULT = "fault"
    HUGETLB = "hugetlb"
    SIGNAL = "signal"
    WRITEBACK = "writeback"


class Fact(IntFlag):
    """What was known of a failure when it arose (FACT_* of bpf/failure.h)."""

    NONE = 0
    BEYOND_END = 0x1
    POISONED = 0x2
    NO_MEMORY = 0x4
    READ_ONLY = 0x8
    IMMUTABLE = 0x10
    SWAPFILE = 0x20
    SHUT_DOWN = 0x40
    DAX_WRITE = 0x80
    #: No errno was seen, nor a signal: where a full memory filesystem would have had one.
    UNSEEN = 0x100
    #: Of a loss at writeback: nobody is known to have had the file mapped for writing.
    UNMAPPED = 0x200
    #: Of a loss at writeback: the kernel keeps no error for the file, which a later msync(2) could tell.
    UNRECORDED = 0x400
    #: A signal that a process sends to itself after it, or its child, has met the kernel's.
    AGAIN = 0x800


#: A handler that writes a dump raises the signal again after that; a parent, once its child has dumped its core.
AGAIN_NS: Final = 60_000_000_000


class Class(StrEnum):
    """What kind of failure it is."""

    REFUSED = "refused"
    TMPFS_FULL = "tmpfs_full"
    HUGETLB = "hugetlb_exhausted"
    BEYOND_END = "beyond_end"
    MEDIA = "media_error"
    SENT = "sent"
    AGAIN = "raised_again"
    WRITEBACK = "writeback"
    WRITEBACK_UNMAPPED = "writeback_unmapped"
    OTHER = "other"


class Diagnosed(NamedTuple):
    """What kind of failure it is, and its errno: a name, "" where none is known.

    ``inferred_from`` says what the errno follows from, "" where the kernel was seen to return it.
    """

    kind: Class = Class.OTHER
    errno: str = ""
    inferred_from: str = ""


#: The bits of a process (process_of in bpf/series.h) that are its pid.
PID: Final = 0xFFFFFFFF


class Cause(NamedTuple):
    """What failures are counted by in the kernel, as it has it (struct cause of bpf/failure.h)."""

    who: int
    dev: int
    generation: int
    error: int
    source: int
    facts: int


class Burst(NamedTuple):
    """Failures of which the first are told one by one, and the rest counted (struct burst_key of bpf/failure.h).

    ``began_monotonic_ns`` tells it from one before it of the same kind, which the kernel forgot to make room.
    """

    process: int
    inode: int
    cause: Cause
    began_monotonic_ns: int = 0

    @property
    def tgid(self) -> int:
        """The process's number, which another may have had."""
        return self.process & PID


@dataclass(frozen=True, slots=True, order=True)
class FailureSeries:
    """What tells one stream of failures from another; a signal that no refusal caused has no filesystem.

    ``errno`` is a name, "" where none was returned and none follows; ``who`` and ``generation`` as in
    ``tracer.model.Series``.
    """

    fstype: str
    mountpoint: str
    dev: int
    kind: Class
    errno: str
    who: str = ""
    generation: int = 0

    @property
    def nameless(self) -> FailureSeries:
        """As ``tracer.model.Series`` has it."""
        return replace(self, fstype="", mountpoint="")


class Disposition(StrEnum):
    """What the signal does to the process."""

    FATAL = "fatal"
    CAUGHT = "caught"
    IGNORED = "ignored"
    BLOCKED = "blocked"


class Code(StrEnum):
    """The si_code of a SIGBUS (include/uapi/asm-generic/siginfo.h)."""

    ADRALN = "BUS_ADRALN"
    ADRERR = "BUS_ADRERR"
    OBJERR = "BUS_OBJERR"
    MCEERR_AR = "BUS_MCEERR_AR"
    MCEERR_AO = "BUS_MCEERR_AO"
    USER = "SI_USER"
    QUEUE = "SI_QUEUE"
    TKILL = "SI_TKILL"
    KERNEL = "SI_KERNEL"
    #: Another that only processes send; they may make codes up (rt_sigqueueinfo(2)).
    SENT = "other, sent"
    OTHER = "other"

    @property
    def sent(self) -> bool:
        """Whether a process sent the signal, rather than the kernel."""
        return self in (Code.USER, Code.QUEUE, Code.TKILL, Code.SENT)


_CODES: Final = {
    1: Code.ADRALN, 2: Code.ADRERR, 3: Code.OBJERR, 4: Code.MCEERR_AR, 5: Code.MCEERR_AO,
    0: Code.USER, -1: Code.QUEUE, -6: Code.TKILL, 0x80: Code.KERNEL,
}  # fmt: skip


def code_of(number: int) -> Code:
    """Return the si_code that the kernel had in 32 bits. Below 0 are those of processes (SI_FROMUSER)."""
    signed = number - (number >> 31 << 32)
    return _CODES.get(signed, Code.SENT if signed < 0 else Code.OTHER)


_VM_FAULT_SIGBUS: Final = 0x2  # include/linux/mm_types.h


@dataclass(frozen=True, slots=True)
class Actor:
    """A thread, as the kernel had it at the time."""

    pid: int
    tid: int
    comm: str


@dataclass(frozen=True, slots=True)
class Signal:
    """A SIGBUS. ``address`` is exact, 0 if the signal has none; ``sender`` is None for the kernel.

    ``module`` is the file that the instruction is mapped from, and the offset in it (``libc.so.6+0x1234``), where the
    task's own instruction caused the signal; "" where it is in no file.
    """

    code: Code
    disposition: Disposition
    address: int
    sender: Actor | None = None
    sender_uid: int = 0
    module: str = ""


@dataclass(frozen=True, slots=True)
class Truncation:
    """The last time that the file was made shorter: when (CLOCK_REALTIME), to which size, by whom.

    ``from_size`` is the size that it had; where the same process made it shorter before, the largest that it had then.
    """

    time_ns: int
    size: int
    by: Actor
    from_size: int


@dataclass(frozen=True, slots=True)
class Failure:
    """A fault that was refused, with the signal that it caused if any; or a SIGBUS without such a fault; or an error
    at writeback, whose ``pid`` is 0 and ``comm`` "": the kernel does not know who wrote.

    The victim is the task that wrote: with the initiator ``remote``, the one that wrote to another's memory.
    ``pid`` is the host's, ``namespace_pid`` that of the innermost pid namespace, the same outside of containers;
    ``parent`` is the parent process. ``comm`` names the thread, ``process_comm`` the process: its first thread.
    ``errno`` is what ``errno_from``, a function below the handler, returned, or recorded; 0 where none was seen.
    ``verdict`` is what follows from all that the kernel said, decided when the failure was decoded, and has
    ``errno_name``. ``size`` and ``allocated`` are the file's, in bytes, at that moment. ``latency_ns`` is known of
    page_mkwrite only.
    ``syscall`` is the number of the system call in which the fault was taken, -1 for an instruction of the program.
    ``command`` holds the first 511 bytes of the arguments, ``command_cut`` if there were more. ``ordinal`` counts the
    failures of this process, file and cause: 1 is the first. ``kernel_error``, ``who``, ``generation`` (see
    ``model.calls.Filesystem``) and ``process``, which is the pid, and when it began (process_of in bpf/series.h), are
    what the kernel counts it under since ``burst_monotonic_ns``.
    ``huge_page`` is the size of hugetlb's pages, 0 for other files.
    ``overridden``: the process ignored or blocked SIGBUS, which the kernel
    undoes for its own fault (force_sig_info_to_task in kernel/signal.c); known of page_mkwrite only.
    ``inferred``: only the signal was seen; ``source`` and ``handler`` follow from the mapping that the address is in.
    """

    time_ns: int
    source: FailureSource
    pid: int
    tid: int
    uid: int
    comm: str
    cgroup_id: int
    verdict: Diagnosed = Diagnosed()  # noqa: RUF009  # immutable
    process_comm: str = ""
    namespace_pid: int = 0
    parent: int = 0
    command: tuple[str, ...] = ()
    command_cut: bool = False
    fstype: str = ""
    mountpoint: str = ""
    dev: int = 0
    generation: int = 0
    inode: int = 0
    file: str = ""
    deleted: bool = False
    size: int = 0
    allocated: int = 0
    facts: Fact = Fact.NONE
    handler: str = ""
    path: FaultPath = FaultPath.FIRST_WRITE
    write: bool = True
    initiator: Initiator = Initiator.USER
    offset: int = 0
    address: int = 0
    ip: int = 0
    syscall: int = -1
    latency_ns: int = 0
    vm_fault: int = 0
    errno: int = 0
    errno_from: str = ""
    huge_page: int = 0
    ordinal: int = 1
    kernel_error: int = 0
    who: int = 0
    process: int = 0
    burst_monotonic_ns: int = 0
    inferred: bool = False
    overridden: Disposition | None = None
    truncation: Truncation | None = None
    signal: Signal | None = None

    @property
    def errno_name(self) -> str:
        """``ENOSPC``, "" where none is known: the verdict's, which may be inferred (``verdict.inferred_from``)."""
        return self.verdict.errno

    @property
    def outcome(self) -> Outcome | None:
        """What came of the call, as outcome_of (bpf/kind.h) has it; None for what was no call."""
        if self.source is not FailureSource.PAGE_MKWRITE:
            return None
        if self.facts & Fact.NO_MEMORY:
            return Outcome.OOM
        if self.facts & Fact.POISONED:
            return Outcome.HWPOISON
        return Outcome.SIGBUS if self.vm_fault & _VM_FAULT_SIGBUS else Outcome.OTHER

    @property
    def burst(self) -> Burst:
        """What the kernel counts it under."""
        source = tuple(FailureSource).index(self.source)
        cause = Cause(self.who, self.dev, self.generation, self.kernel_error, source, int(self.facts))
        return Burst(self.process, self.inode, cause, self.burst_monotonic_ns)


#: What a session tells one by one.
Event = CallEvent | Failure
