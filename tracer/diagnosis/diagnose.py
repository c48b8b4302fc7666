"""From a failure and the state of the host to what happened, why, and what to do. No I/O.

What the kernel said is told apart from what was concluded: a conclusion names what it was drawn from
(``Diagnosis.inferred_from``), and where nothing allows one, none is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tracer.diagnosis.errnos import Reason, command, df, explain_errno, file_command, lines, place
from tracer.diagnosis.late_reasons import late_reason
from tracer.diagnosis.media import poisoned, unreadable
from tracer.model.failures import Class, Code, Fact, Failure, FailureSource
from tracer.model.host_state import HostState, HugeState
from tracer.text import duration, printable, size_text

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """``cause`` and ``remedy`` are sentences. ``errno`` is a name, or "".

    ``run`` are the commands that carry the remedy out, ``check`` those to see for oneself: a line each, complete.
    """

    kind: Class
    cause: str
    remedy: str
    check: str = ""
    errno: str = ""
    inferred_from: str = ""
    run: str = ""


def diagnose(failure: Failure, state: HostState) -> Diagnosis:
    """Why a failure happened."""
    kind, errno, inferred = failure.verdict
    if failure.source is FailureSource.SIGNAL:
        return _signal(failure, state)
    if failure.source is FailureSource.WRITEBACK:
        return _reasoned(kind, late_reason(failure, state), errno, inferred)
    if failure.facts & Fact.POISONED:
        return _reasoned(Class.MEDIA, poisoned(failure, state), "", "")
    if kind is Class.BEYOND_END:
        return _beyond_end(failure, state)
    if kind is Class.HUGETLB:
        return _hugetlb(failure, state, errno, inferred)
    if kind is Class.TMPFS_FULL:
        return _tmpfs_full(failure, state, errno, inferred)
    if failure.fstype in ("tmpfs", "devtmpfs"):
        return _tmpfs(kind, errno)
    if kind is Class.MEDIA:
        return _fault(failure, state, errno, inferred)
    if not errno:
        errno, inferred = _errno_of_handler(failure) or _errno_of_state(state)
    return _reasoned(Class.REFUSED, explain_errno(errno, failure, state), errno, inferred)


def _reasoned(kind: Class, why: Reason, errno: str, inferred: str) -> Diagnosis:
    return Diagnosis(kind, why.cause, why.remedy, why.check, errno, inferred, why.run)


def _errno_of_handler(failure: Failure) -> tuple[str, str] | None:
    """Return the errno that a handler leaves which returns none, and whose inner functions were all watched."""
    if failure.fstype == "nilfs2" and not failure.inferred:
        # nilfs_page_mkwrite in fs/nilfs2/file.c
        return "ENOSPC", "nilfs_page_mkwrite, which refuses without an errno only when few segments are left"
    return None


def _errno_of_state(state: HostState) -> tuple[str, str]:
    """Return the errno that the filesystem's state leaves, and what it was inferred from."""
    if state.shut_down:
        return "EIO", "the state of the filesystem: it is shut down"
    if any(quota.free == 0 for quota in state.quotas):
        return "EDQUOT", "a quota that has nothing left"
    if state.space and not state.space.free:
        return "ENOSPC", "statfs, which finds nothing free"
    return "", ""


def _fault(failure: Failure, state: HostState, errno: str, inferred: str) -> Diagnosis:
    stale = errno == "ESTALE"
    why = explain_errno(errno, failure, state) if stale else unreadable(failure, state)
    return _reasoned(Class.MEDIA, why, errno, inferred)


def _tmpfs(kind: Class, errno: str) -> Diagnosis:
    return Diagnosis(
        kind,
        f"tmpfs could not give the page{errno and f': {errno}'}.",
        "Look in the kernel's log; a page of tmpfs may have been swapped out to a device that failed.",
        "dmesg | tail -50",
        errno,
    )


def _tmpfs_full(failure: Failure, state: HostState, errno: str, inferred: str) -> Diagnosis:
    where = place(failure, state)
    limit = f" (size={printable(state.limit)})" if state.limit else ""
    container = f" of container {printable(state.container)}" if state.container else ""
    remedy = f"Make the tmpfs{container} larger"
    if state.container or where == "/dev/shm":
        remedy += "; a container's /dev/shm is 64 MB unless started with --shm-size (Docker) or an emptyDir of " + (
            "medium Memory with a sizeLimit (Kubernetes)"
        )
    return Diagnosis(
        Class.TMPFS_FULL,
        f"The tmpfs at {where}{limit} is full, and a page of this file had to be allocated.",
        f"{remedy}. Or remove what fills it.",
        lines(df(failure, state), command(failure, state, "du -ah", "| sort -h | tail")),
        errno,
        inferred,
        _enlarge(failure, state),
    )


def _enlarge(failure: Failure, state: HostState) -> str:
    """Return the command that makes a tmpfs large enough for all of this file."""
    if state.space is None:
        return ""
    lacking = max(failure.size - failure.allocated, _MIB)
    mib = -(-(state.space.total - state.space.free + lacking) // _MIB)
    return command(failure, state, f"mount -o remount,size={max(mib, -(-state.space.total // _MIB) + 1)}m")


def _hugetlb(failure: Failure, state: HostState, errno: str, inferred: str) -> Diagnosis:
    pool, run = state.huge, ""
    why, remedy = "The pool of huge pages had none free.", "Raise the pool."
    reservation = "The mapping was made without a reservation (MAP_NORESERVE, fork, or a limit of the mount)."
    learn = "Programs that reserve their huge pages learn it from mmap(2) instead."
    if pool:
        lacking = max(1, -(-(failure.size - failure.allocated) // pool.page) - pool.free)
        run = f"echo {pool.total + lacking} > /sys/kernel/mm/hugepages/hugepages-{pool.page >> 10}kB/nr_hugepages"
    if pool and _limited(pool):
        why = f"The cgroup {printable(pool.cgroup)} may take no more huge pages."
        if pool.cgroup_free >= pool.page:
            left = size_text(pool.cgroup_free)
            why = f"The limit of cgroup {printable(pool.cgroup)} refused a huge page; now {left} are left."
        remedy, run = "Raise hugetlb.*.max of that cgroup.", ""
        reservation = "That is met when a page is first accessed, also where mmap(2) has reserved it."
        learn = "With a limit on reservations (hugetlb.*.rsvd.max), programs learn it from mmap(2) instead."
    elif pool and pool.free > pool.reserved:
        why = f"A huge page could not be had; now the pool has {pool.free - pool.reserved} free."
    return Diagnosis(
        Class.HUGETLB,
        f"{why} {reservation}",
        f"{remedy} {learn}",
        lines("grep -i huge /proc/meminfo", "grep -r . /sys/fs/cgroup --include 'hugetlb.*.max'"),
        errno,
        inferred,
        run,
    )


def _limited(pool: HugeState) -> bool:
    """Whether it was the cgroup's limit: what its victim had may be given back by now, but the limit has refused."""
    if pool.cgroup and pool.cgroup_free < pool.page:
        return True
    return bool(pool.cgroup_refusals) and pool.free > pool.reserved


def _beyond_end(failure: Failure, state: HostState) -> Diagnosis:
    size, offset = size_text(failure.size), size_text(failure.offset)
    cut = failure.truncation
    who = ago = sizes = ""
    if cut is not None:
        who = f"{printable(cut.by.comm)}[{cut.by.pid}]"
        ago = f"{duration(max(0, failure.time_ns - cut.time_ns))} ago"
        sizes = f"from {size_text(cut.from_size)} to {size_text(cut.size)}"
    if cut is not None and cut.size <= failure.offset < cut.from_size:
        cause = f"The page at {offset} is beyond the end of the file: {who} had cut it {sizes} {ago}."
        remedy = (
            f"Keep {who} from truncating a file that others have mapped: replace the file (write another, rename it) "
            "instead."
        )
    else:
        cause = f"The page at {offset} is beyond the end of the file, which has {size}. "
        cause += (
            "Who cut it, if somebody did, is not seen with the tracepoint backend."
            if failure.inferred
            else f"Nobody was seen to cut off this page: {who} cut the file {sizes} {ago}."
            if cut is not None
            else "Nobody was seen to cut it since mkwrite was started."
        )
        remedy = "Have the program check the file's size before it uses the mapping, and find out who truncates it."
    return Diagnosis(Class.BEYOND_END, cause, remedy, file_command(state, "stat"), failure.errno_name)


def _signal(failure: Failure, state: HostState) -> Diagnosis:
    signal = failure.signal
    assert signal is not None
    if signal.code in (Code.MCEERR_AR, Code.MCEERR_AO):
        return _reasoned(Class.MEDIA, poisoned(failure, state), "", "")
    if signal.code.sent and signal.sender is not None:
        who = f"{printable(signal.sender.comm)}[{signal.sender.pid}]"
        if failure.verdict.kind is Class.AGAIN:
            return Diagnosis(
                Class.AGAIN,
                "No fault of its own: the process, or its child, had met a SIGBUS, and sends itself the signal again.",
                "Look for the report of that one: it has the reason.",
            )
        if signal.sender.pid == failure.pid:
            return Diagnosis(
                Class.SENT,
                "No fault: the process sent the signal to itself (kill, raise).",
                "Look for the reason in what it says and logs; memory, files and disks have nothing to do with it.",
            )
        return Diagnosis(
            Class.SENT,
            f"No fault: {who}, user {signal.sender_uid}, sent the signal.",
            f"Ask why {who} does so; memory, files and disks have nothing to do with it.",
            f"ps -o pid,ppid,user,lstart,args -p {signal.sender.pid}" if state.host_pids else "",
        )
    if signal.code is Code.ADRALN:
        return Diagnosis(
            Class.OTHER,
            "An access that was not aligned, by a program that has alignment checks on, or a split lock.",
            "Correct the program at the instruction; no file is concerned.",
            "dmesg | tail",
        )
    return Diagnosis(
        Class.OTHER,
        f"The kernel sent SIGBUS ({signal.code.value}), and not for a page of a file that it was seen to refuse.",
        "Look in the kernel's log; possible are devices' memory, swap that cannot be read, and userfaultfd.",
        "dmesg | tail -50",
    )
