"""Does what the filters name exist? Asked before anything is attached: a typing error is not a quiet host."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from tracer.errors import UsageError
from tracer.host.cgroups import Cgroups
from tracer.host.mounts import Mounts
from tracer.host.processes import host_pids
from tracer.model.options import Filters
from tracer.text import printable

#: A task's name has that many bytes at most (TASK_COMM_LEN less its NUL).
COMM_BYTES: Final = 15
#: Alternatives listed in an error.
_LISTED: Final = 40
#: Processes listed in one.
_NEAREST: Final = 10

_PROC: Final = Path("/proc")


def check(filters: Filters, mounts: Mounts, cgroups: Cgroups, handlers_known: Collection[str]) -> None:
    """Raise UsageError, which lists what exists, for the first filter that names what does not.

    ``handlers_known`` are the names of the handlers that this kernel has.
    """
    for fstype in filters.fs:
        _check_filesystem(fstype, mounts)
    for mountpoint in filters.mounts:
        _check_mount(mountpoint, mounts)
    for pid in filters.pids:
        _check_process(pid)
    for comm in filters.comms:
        _check_comm(comm)
    for cgroup in filters.cgroups:
        cgroups.id_of(cgroup)
    for handler in filters.handlers:
        if handler not in handlers_known:
            known = _choices("Handlers of this kernel", handler, handlers_known)
            raise UsageError(f"Unknown handler '{printable(handler)}'.", known)


def check_host_pids(filters: Filters) -> None:
    """Raise UsageError for pids that would be another process's: the kernel tells of the host's."""
    if filters.pids and not host_pids():
        raise UsageError(
            "--pid means the host's pids, and this process is in a pid namespace of its own.",
            "Choose by --cgroup or --comm, or share the host's pid namespace (--pid=host, hostPID: true).",
        )


def _check_filesystem(fstype: str, mounts: Mounts) -> None:
    known = filesystems_known(mounts)
    if fstype not in known:
        cure = _choices("Filesystems known to this kernel", fstype, known)
        raise UsageError(f"Unknown filesystem '{printable(fstype)}'.", cure)


def filesystems_known(mounts: Mounts) -> set[str]:
    """Return the types that are mounted, that this kernel has, and that it could load."""
    return {mount.fstype for mount in mounts} | _filesystems(_PROC / "filesystems") | _loadable_filesystems()


def _filesystems(path: Path) -> set[str]:
    """Return the types in /proc/filesystems; a line is ``nodev<TAB>proc`` or ``<TAB>ext4``."""
    try:
        lines = path.read_text(errors="surrogateescape").split("\n")
    except OSError:
        return set()
    return {line.rpartition("\t")[2] for line in lines if line}


def _loadable_filesystems() -> set[str]:
    """Types whose module their first mount would load: modules.alias has ``alias fs-xfs xfs`` for each."""
    try:
        aliases = Path("/lib/modules", os.uname().release, "modules.alias").read_bytes()
    except OSError:
        return set()
    return {os.fsdecode(name) for name in re.findall(rb"^alias fs-(\S+) ", aliases, re.MULTILINE)}


def _check_mount(mountpoint: str, mounts: Mounts) -> None:
    if mounts.at(mountpoint) is None:
        known = {mount.mountpoint for mount in mounts}
        cure = _choices("Mount points", mountpoint, known)
        raise UsageError(f"Nothing is mounted at '{printable(mountpoint)}'.", cure)


def _check_process(pid: int) -> None:
    leader = _leader(pid)
    if leader == pid:
        return
    if leader:
        raise UsageError(f"{pid} is a thread, not a process.", f"Its process is {leader}.")
    running = [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]
    near = sorted(sorted(running, key=lambda other: abs(other - pid))[:_NEAREST])
    cure = f"Of {len(running)} processes, the nearest are {', '.join(f'{_comm(p)}[{p}]' for p in near)}."
    raise UsageError(f"There is no process {pid}.", cure)


def _leader(pid: int) -> int:
    """Return the process that a thread belongs to (itself, for a process), 0 if there is no such thread."""
    try:
        status = (_PROC / str(pid) / "status").read_bytes()
    except OSError:
        return 0
    return next((int(line[5:]) for line in status.split(b"\n") if line.startswith(b"Tgid:")), 0)


def _comm(pid: int) -> str:
    try:
        comm = (_PROC / str(pid) / "comm").read_bytes()
    except OSError:
        return "?"
    return printable(os.fsdecode(comm.removesuffix(b"\n")))


def _check_comm(comm: str) -> None:
    if not comm:
        raise UsageError("A task's name cannot be empty.", "Give it as in /proc/PID/comm, or leave --comm out.")
    if len(os.fsencode(comm)) > COMM_BYTES:
        raise UsageError(
            f"'{printable(comm)}' is too long: the kernel keeps {COMM_BYTES} bytes of a task's name.",
            f"Give it as in /proc/PID/comm: '{printable(os.fsdecode(os.fsencode(comm)[:COMM_BYTES]))}'.",
        )


def _choices(what: str, wanted: str, known: Iterable[str]) -> str:
    """Return ``what`` and the names that could have been meant: those like ``wanted`` first, then the others."""
    others = sorted(known)
    if not others:
        return f"{what}: none."
    close = get_close_matches(wanted, others, n=3)
    names = [*close, *(name for name in others if name not in close)]
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    meant = f"Did you mean '{printable(close[0])}'? " if close else ""
    return f"{meant}{what}: {', '.join(map(printable, names[:_LISTED]))}{more}."
