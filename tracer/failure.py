"""What a refused fault or a SIGBUS is, as types. No I/O, no BCC; see ``tracer.model`` for units and strings."""

from __future__ import annotations

import errno as errnos
from dataclasses import dataclass
from enum import StrEnum

from tracer.model import Initiator, Path


class Source(StrEnum):
    """Where a failure arose."""

    PAGE_MKWRITE = "page_mkwrite"
    FAULT = "fault"
    HUGETLB = "hugetlb"
    SIGNAL = "signal"


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
    OTHER = "other"

    @property
    def sent(self) -> bool:
        """Whether a process sent the signal, rather than the kernel."""
        return self in (Code.USER, Code.QUEUE, Code.TKILL)


@dataclass(frozen=True, slots=True)
class Actor:
    """A thread, as the kernel had it at the time."""

    pid: int
    tid: int
    comm: str


@dataclass(frozen=True, slots=True)
class Signal:
    """A SIGBUS. ``address`` is exact, 0 if the signal has none; ``sender`` is None for the kernel."""

    code: Code
    disposition: Disposition
    address: int
    sender: Actor | None = None
    sender_uid: int = 0


@dataclass(frozen=True, slots=True)
class Truncation:
    """The last time that the file was made shorter: when (CLOCK_REALTIME), to which size, by whom."""

    time_ns: int
    size: int
    by: Actor


@dataclass(frozen=True, slots=True)
class Failure:
    """A fault that was refused, with the signal that it caused if any; or a SIGBUS without such a fault.

    The victim is the task that wrote: with the initiator ``remote``, the one that wrote to another's memory.
    ``errno`` is what ``errno_from``, a function below the handler, returned; 0 where none was seen. ``size`` and
    ``allocated`` are the file's, in bytes, at that moment. ``latency_ns`` is known of page_mkwrite only.
    ``syscall`` is the number of the system call in which the fault was taken, -1 for an instruction of the program.
    ``command`` holds the first 511 bytes of the arguments. ``ordinal`` counts the failures of this process, file and
    cause: 1 is the first. ``kernel_error`` is what tells the causes apart in the kernel's counts.
    """

    time_ns: int
    source: Source
    pid: int
    tid: int
    uid: int
    comm: str
    cgroup_id: int
    command: tuple[str, ...] = ()
    fstype: str = ""
    mountpoint: str = ""
    dev: int = 0
    inode: int = 0
    file: str = ""
    deleted: bool = False
    size: int = 0
    allocated: int = 0
    read_only: bool = False
    immutable: bool = False
    swapfile: bool = False
    handler: str = ""
    path: Path = Path.FIRST_WRITE
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
    ordinal: int = 1
    kernel_error: int = 0
    truncation: Truncation | None = None
    signal: Signal | None = None

    @property
    def errno_name(self) -> str:
        """``ENOSPC``, or "" where none was seen."""
        return errnos.errorcode.get(self.errno, str(self.errno)) if self.errno else ""

    @property
    def beyond_end(self) -> bool:
        """Whether the page lay wholly beyond the end of the file, as filemap_fault and shmem_fault test it."""
        return self.source in (Source.FAULT, Source.HUGETLB) and self.inode != 0 and self.offset >= self.size
