"""Processes: name, user, privilege, control group, container; read from /proc, gone ones are no error."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Final

from tracer.host.containers import container_of
from tracer.model.capabilities import Capability

#: The initial pid namespace (include/linux/proc_ns.h).
_INIT_PID: Final = "pid:[4026531836]"
#: The name of a container, as LXC and systemd-nspawn make it.
_CONTAINER_NAME: Final = re.compile(r"/(?:lxc\.payload[./]|machine\.slice/machine-)([^/]+?)(?:\.scope)?(?:/|$)")
_SHORT_ID: Final = 12


@dataclass(frozen=True, slots=True)
class Process:
    """A process. ``uid`` is the one that file access is checked with.

    ``privileged``: it may use the blocks that ext4 keeps for root, and is not held to quotas of ext4 and f2fs (user 0,
    or CAP_SYS_RESOURCE outside of containers with users of their own). ``cgroup`` is the path in the v2 hierarchy,
    ``container`` the short id or the name that its cgroup tells; both may be empty.
    """

    pid: int
    comm: str
    uid: int
    privileged: bool
    cgroup: str
    container: str

    @property
    def label(self) -> str:
        """``comm[pid]``."""
        return f"{self.comm}[{self.pid}]"


@cache
def host_pids() -> bool:
    """Whether /proc shows pids as the host has them, and as the programs do: not in a pid namespace of its own."""
    return Path("/proc/self/ns/pid").readlink() == Path(_INIT_PID)


def concealed() -> str:
    """Which of the host's processes /proc does not show here, in a sentence; "" where it shows them all."""
    if not host_pids():
        return "Processes outside of this pid namespace: share the host's (--pid=host, hostPID: true)."
    if not Path("/proc/1").exists():
        return "Other users' processes: /proc is mounted with hidepid, or has ProtectProc=; root sees them."
    return ""


def comm(pid: int) -> str:
    """Return the name of a process, "?" where it may not be seen."""
    try:
        return os.fsdecode(_contents(f"/proc/{pid}/comm").removesuffix(b"\n"))
    except OSError:
        return "?"


def in_cgroup(pid: int, paths: Iterable[PurePosixPath]) -> bool:
    """Whether a process is in one of the cgroups, by their paths in the hierarchy, or below it."""
    try:
        own = PurePosixPath(_cgroup(_contents(f"/proc/{pid}/cgroup")))
    except OSError:
        return False
    return any(own.is_relative_to(path) for path in paths)


def pids() -> list[int]:
    """All processes that /proc shows, by number."""
    return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())


def read(pid: int) -> Process | None:
    """Return what is known of a process; None if it is gone."""
    try:
        name = _contents(f"/proc/{pid}/comm").removesuffix(b"\n")
        status = dict(_fields(_contents(f"/proc/{pid}/status")))
        cgroup = _cgroup(_contents(f"/proc/{pid}/cgroup"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    uid = int(status[b"Uid"].split()[3])
    capable = bool(int(status[b"CapEff"], 16) >> Capability.SYS_RESOURCE & 1)
    privileged = uid == 0 or (capable and _shares_users(pid))
    return Process(pid, os.fsdecode(name), uid, privileged, cgroup, container(cgroup))


def container(cgroup: str) -> str:
    """Return the short id or the name of the container that a cgroup's path belongs to, "" for none."""
    if container_id := container_of(cgroup).container_id:
        return container_id[:_SHORT_ID]
    name = _CONTAINER_NAME.search(cgroup)
    return name[1] if name else ""


def _cgroup(text: bytes) -> str:
    """Return the path on the line ``0::/path`` of /proc/PID/cgroup; on hosts without cgroup v2 the first line's."""
    lines = [line.split(b":", 2) for line in text.split(b"\n") if line.count(b":") >= 2]
    path = next((line[2] for line in lines if line[0] == b"0"), lines[0][2] if lines else b"")
    return os.fsdecode(path)


def _fields(status: bytes) -> Iterator[tuple[bytes, bytes]]:
    for line in status.split(b"\n"):
        name, colon, value = line.partition(b":")
        if colon:
            yield name, value


def _shares_users(pid: int) -> bool:
    """Whether a process is in our user namespace: a capability in another one is none here."""
    try:
        return Path(f"/proc/{pid}/ns/user").readlink() == Path("/proc/self/ns/user").readlink()
    except OSError:
        return False


def _contents(path: str) -> bytes:
    """All of it: a process may be in so many groups that one read is not enough."""
    with open(path, "rb", buffering=0) as stream:  # noqa: PTH123  # in a hurry
        return stream.read()
