"""Why a filesystem said no, by errno: cause, remedy, and the command to check. No I/O."""

from __future__ import annotations

from typing import Final, NamedTuple

from tracer.model.failures import Failure
from tracer.model.filesystems import Fallocate, rules
from tracer.model.host_state import PARTLY, HostState
from tracer.text import printable, shell_word, size_text


class Reason(NamedTuple):
    """Sentences, and commands a line each: ``check`` to see for oneself, ``run`` to carry the remedy out."""

    cause: str
    remedy: str
    check: str = ""
    run: str = ""


def explain_errno(errno: str, failure: Failure, state: HostState) -> Reason:
    """Return what an errno of page_mkwrite means for the user; "" for one that is not known."""
    return _REASONS.get(errno, _unknown)(failure, state)


def place(failure: Failure, state: HostState) -> str:
    """Return the mount point, escaped."""
    return printable(state.mountpoint or failure.mountpoint) or "the filesystem"


def command(failure: Failure, state: HostState, words: str, *more: str) -> str:
    """Return a command about the mount point, which comes after ``words``; "" where it cannot be run.

    It is run in the mount namespace that the mount is in: elsewhere its path may be that of another filesystem.
    """
    where = state.entered_at or state.mountpoint or failure.mountpoint
    if not where or state.enter is None:
        return ""
    return " ".join([f"{state.enter}{words}", shell_word(where), *more])


def file_command(state: HostState, words: str) -> str:
    """Return a command about the file, which comes after ``words``; "" where none reaches it from here."""
    return f"{words} {shell_word(state.file_here)}" if state.file_here else ""


def df(failure: Failure, state: HostState) -> str:
    """Return the command that shows what is free there."""
    return command(failure, state, "df -h")


def lines(*commands: str) -> str:
    """Commands, a line each; those that cannot be run ("") are left out."""
    return "\n".join(filter(None, commands))


def _no_space(failure: Failure, state: HostState) -> Reason:
    where, check = place(failure, state), df(failure, state)
    if failure.fstype == "xfs" and any(quota.kind == "project" and not quota.free for quota in state.quotas):
        # xfs_trans_dqresv in fs/xfs/xfs_trans_dquot.c: a project over its limit gets ENOSPC, not EDQUOT.
        check = command(failure, state, "xfs_quota -x -c 'report -p -h'")
        return _quota(failure, state)._replace(check=check)
    if failure.errno_from in ("btrfs_delalloc_reserve_metadata", "btrfs_start_transaction"):
        return _no_metadata(failure, state)
    cause = f"{_needs(failure, state)}, and {where} has none to give."
    if state.space and state.space.free >= _PLENTY:
        cause = f"{where} refused to reserve a block, though it has {size_text(state.space.free)} free by statfs now."
        if state.file_gone:
            cause += " The file was removed meanwhile, which may be what made room."
        elif failure.fstype == "btrfs":
            check = command(failure, state, "btrfs filesystem usage")
            cause += " On btrfs the space may be allotted to the other kind of data, or promised."
    elif state.space and state.space.free_to_root > state.space.free:
        cause += f" Only root may use the last {size_text(state.space.free_to_root - state.space.free)}."
    return Reason(cause, f"Free some space. {_preallocate(failure)}", check)


def _needs(failure: Failure, state: HostState) -> str:
    """Return what the page asked for, as far as it is known what it has."""
    backing = state.file.backing if state.file else ""
    if backing == "hole":
        return "The page has no block on disk yet"
    if backing == PARTLY:
        return "Part of the page has no block on disk yet"
    if backing in _TAKEN:
        return "The page needs a new block, since its own is not written over (copy on write)"
    if rules(failure.fstype).rewrites:
        return "The page needs a new block, whether it has one or not (copy on write)"
    return "The page needs a block on disk"


def _no_metadata(failure: Failure, state: HostState) -> Reason:
    where = place(failure, state)
    data = next((part for part in state.chunks if part.kind == "data"), None)
    has = f", though data has {size_text(data.free)} free in chunks of its own" if data and data.free else ""
    return Reason(
        f"{where} has no space left for metadata, which each write needs{has}.",
        "Free some space, add a device, or give chunks of data back that are nearly empty.",
        command(failure, state, "btrfs filesystem usage"),
        command(failure, state, "btrfs balance start -dusage=10"),
    )


def _preallocate(failure: Failure) -> str:
    known = rules(failure.fstype)
    if known.fallocate is Fallocate.PROTECTS:
        return "To fail early instead, have the program allocate the file (posix_fallocate) before it maps it."
    return known.fallocate_why if known.fallocate is not Fallocate.UNKNOWN else ""


def _quota(failure: Failure, state: HostState) -> Reason:
    empty = next((quota for quota in state.quotas if not quota.free), None)
    least = empty or min(state.quotas, key=lambda quota: quota.free, default=None)
    if failure.fstype == "btrfs":
        check = command(failure, state, "btrfs qgroup show -re")
    else:
        report = "xfs_quota -x -c 'report -ugp -h'" if failure.fstype == "xfs" else "repquota -ugP"
        check = command(failure, state, report)
    if least is None:
        return Reason(
            "A quota does not allow one more block.", "Raise the quota, or remove files that count for it.", check
        )
    name = f"{least.kind} {least.number}"
    left = f"has {size_text(least.free)} left" if least.free else "has nothing left"
    return Reason(
        f"The page needs a block, and the quota of {name} {left}; the filesystem itself may have space.",
        f"Raise the quota of {name}, or remove files that count for it. {_preallocate(failure)}",
        check,
    )


def _read_only(failure: Failure, state: HostState) -> Reason:
    if state.subvolume_read_only and not state.read_only:
        where = place(failure, state)
        return Reason(
            f"The file's subvolume was made read-only while the file was mapped; the rest of {where} is not.",
            "Have programs close their files before a subvolume is made read-only; or make it writable again.",
            command(failure, state, "btrfs subvolume list -r"),
            state.subvolume and f"btrfs property set -ts {shell_word(state.subvolume)} ro false",
        )
    return Reason(
        f"{place(failure, state)} is read-only: remounted, or made so by the filesystem after an error.",
        "Look in the kernel's log for the error that made it read-only; repair the filesystem, then mount it again.",
        lines("dmesg | tail -50", command(failure, state, "findmnt")),
    )


def _io(failure: Failure, state: HostState) -> Reason:
    what = "could not read or write its metadata"
    if state.shut_down:
        what = "is shut down, and refuses every write"
    elif failure.fstype in ("xfs", "ext4", "ext3", "ext2", "f2fs"):
        what = f"is shut down, or {what}"
    return Reason(
        f"{place(failure, state)} {what}.",
        "Look in the kernel's log for the device's errors; unmount and repair the filesystem.",
        "dmesg | tail -50",
    )


def _stale(failure: Failure, state: HostState) -> Reason:
    return Reason(
        "The file's handle is stale: the server no longer has the file.",
        "Find out who removed or replaced the file on the server; open it anew.",
        lines("nfsstat -m", file_command(state, "ls -l")),
    )


def _no_memory(failure: Failure, state: HostState) -> Reason:
    return Reason(
        "There was no memory for the page or for the filesystem's work on it, in the host or in the cgroup.",
        "Raise the memory limit of the cgroup, or give the host more memory.",
        lines(
            state.cgroup_directory and f"cat {shell_word(f'{state.cgroup_directory}/memory.events')}",
            "dmesg | tail -50",
        ),
    )


def _swap(failure: Failure, state: HostState) -> Reason:
    return Reason("The file is in use as swap.", "Switch the swap off before the file is written to.", "swapon --show")


def _immutable(failure: Failure, state: HostState) -> Reason:
    check, run = file_command(state, "lsattr"), file_command(state, "chattr -i")
    return Reason("The file was made immutable.", "Take the flag away.", check, run)


def _unknown(failure: Failure, state: HostState) -> Reason:
    errno = f" with {failure.errno_name}" if failure.errno else ""
    hint = "" if errno else " No function was seen to return an errno, and nothing about the host tells it."
    return Reason(
        f"{failure.handler or 'The handler'} refused to make the page writable{errno}.{hint}",
        "Look in the kernel's log, and at the state of the filesystem.",
        lines("dmesg | tail -50", df(failure, state)),
    )


_REASONS: Final = {
    "ENOSPC": _no_space,
    "EDQUOT": _quota,
    "EROFS": _read_only,
    "EIO": _io,
    "EUCLEAN": _io,
    "ESTALE": _stale,
    "ENOMEM": _no_memory,
    "ETXTBSY": _swap,
    "EPERM": _immutable,
}
#: What backs a page that has a block already.
_TAKEN: Final = ("unwritten", "shared", "encoded", "written")
#: More than a page needs, with its metadata: a filesystem that has it did not refuse for want of blocks alone.
_PLENTY: Final = 1 << 20
