"""Every file of the host that is mapped shared and writable: by whom, and on which filesystem."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Final

from tracer.host import files, processes
from tracer.host.cgroups import Cgroups
from tracer.host.mappings import Mapping, MappingReader, beyond_end, link
from tracer.host.mount_namespaces import MountNamespaces
from tracer.host.mounts import Mounts
from tracer.host.processes import Process
from tracer.host.reach import path_here
from tracer.model import filesystems
from tracer.model.mounts import Mount
from tracer.model.options import Filters
from tracer.text import counted

#: Filesystems without files on them: windows into the kernel and into devices.
_WINDOWS: Final = frozenset(
    {
        *("binder", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "mqueue", "nsfs"),
        *("pipefs", "proc", "pstore", "resctrl", "securityfs", "selinuxfs", "smackfs", "sockfs", "sysfs", "tracefs"),
    }
)
#: What the kernel calls memory of its own hugetlbfs mounts (mm/hugetlb.c, mm/memfd.c, ipc/shm.c).
_HUGE_NAMES: Final = ("/anon_hugepage", "/memfd:", "/SYSV")
_HUGE_BYTES: Final = 1 << 16
_DELETED: Final = " (deleted)"
#: Processes named that may not be looked at.
_NAMED: Final = 8


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A file, once, however often it is mapped. Sizes in bytes.

    ``dev``, ``fstype`` and ``mountpoint`` are those of the filesystem that its blocks come from (the upper one, for an
    overlay); ``enter`` makes a command see that mount, where it is in another mount namespace. ``here`` is a path by
    which a command reaches the file from here, "" where none is known.
    ``beyond``: bytes of whole pages that are mapped beyond the end of the file; any touch of them is a SIGBUS. ``size``
    and ``allocated`` are None where the file could not be asked; ``allocated`` may count metadata.
    """

    path: str
    deleted: bool
    dev: int
    inode: int
    fstype: str
    mountpoint: str
    source: str
    size: int | None
    allocated: int | None
    mappings: tuple[Mapping, ...]
    enter: str = ""
    here: str = ""
    beyond: int = 0

    @property
    def pids(self) -> tuple[int, ...]:
        """Who maps it."""
        return tuple(sorted({mapping.pid for mapping in self.mappings}))


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found, and what could not be looked at.

    ``files`` have the mappings through which they can be written; ``cut`` are those that are mapped beyond their end,
    with all mappings, read-only ones included. ``hidden`` has the names of processes that this one may not look at, by
    pid, ``concealed`` a sentence on those that /proc does not even show. ``memory`` counts the mappings of no mounted
    filesystem, ``doubtful`` those that may be such or huge pages.
    """

    files: tuple[MappedFile, ...]
    processes: dict[int, Process]
    hidden: dict[int, str]
    memory: int
    cut: tuple[MappedFile, ...] = ()
    concealed: str = ""
    doubtful: int = 0

    @property
    def unseen(self) -> tuple[str, ...]:
        """What should have been looked at, and could not be."""
        found = [self.concealed] if self.concealed else []
        if self.hidden:
            names = [f"{comm}[{pid}]" for pid, comm in sorted(self.hidden.items())]
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            root = os.geteuid() == 0
            cure = "CAP_SYS_PTRACE is missing, or a security policy forbids it" if root else "root sees more"
            processes = counted(len(names), "process", "processes")
            found.append(f"{processes}, whose mappings may not be read: {', '.join(names[:_NAMED])}{more}; {cure}.")
        if self.doubtful:
            found.append(f"{counted(self.doubtful, 'mapping')} of memory that may be of huge pages; root sees that.")
        return tuple(found)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader has to know of the limits of this look, whoever looks."""
        notes = []
        if self.memory:
            memory = (
                f"{counted(self.memory, 'shared mapping')} of no mounted filesystem (memfd, shared anonymous memory)"
            )
            notes.append(f"Left out: {memory}; no filesystem is asked for their pages.")
        return tuple(notes)


def scan(
    filters: Filters = Filters(),  # noqa: B008  # frozen
    *,
    remote: bool = False,
    query: bool = True,
) -> Scan:
    """Look at the processes, for files on the filesystems, that ``filters`` let through (all but ``handlers``).

    ``remote``: files of network filesystems and FUSE are asked for their size, too, which can take forever.
    Processes that end meanwhile are as if they had never been.
    """
    reader = MappingReader(query=query)
    places = MountNamespaces()
    groups: dict[tuple[int, int, str], tuple[Mount, list[Mapping]]] = {}
    hidden: dict[int, str] = {}
    memory = doubtful = 0
    devices = _devices(filters.mounts)
    hierarchy = Cgroups(Mounts.read()) if filters.cgroups else Cgroups(Mounts())
    cgroups = [hierarchy.named(path) for path in filters.cgroups]
    for pid in filters.pids or processes.pids():
        if (filters.comms and processes.comm(pid) not in filters.comms) or (
            cgroups and not processes.in_cgroup(pid, cgroups)
        ):
            continue
        try:
            found = reader.read(pid)
        except PermissionError:
            hidden[pid] = processes.comm(pid)
            continue
        for mapping in found:
            try:
                mount = places.find(mapping.dev, pid) or _huge(mapping)
            except PermissionError:
                doubtful += mapping.writable
                continue
            if mount is None:
                memory += mapping.writable
            elif (
                mount.fstype not in _WINDOWS
                and mount.is_of(filters.fs)
                and (mount.dev in devices or not filters.mounts)
            ):
                key = (mapping.dev, mapping.inode, mapping.name)
                groups.setdefault(key, (mount, []))[1].append(mapping)
    merged: dict[tuple[int, int], list[MappedFile]] = {}
    for mount, mappings in groups.values():
        if found_file := _file(mount, mappings, remote, places):
            identity, file = found_file
            merged.setdefault(identity, []).append(file)
    whole = [_merge(parts) for parts in merged.values()]
    cut = tuple(replace(file, beyond=beyond) for file in whole if (beyond := _beyond(file)))
    changed = [replace(file, mappings=tuple(m for m in file.mappings if not m.fixed)) for file in whole]
    kept = tuple(file for file in changed if file.mappings)
    mapping_pids = sorted({pid for file in (*kept, *cut) for pid in file.pids})
    known = {pid: process for pid in mapping_pids if (process := processes.read(pid)) is not None}
    return Scan(kept, known, hidden, memory, cut, "" if filters.pids else processes.concealed(), doubtful)


def _devices(mountpoints: Collection[str]) -> set[int]:
    """Return the filesystems that are mounted there."""
    mounts = Mounts.read() if mountpoints else Mounts()
    return {mount.dev for place in mountpoints if (mount := mounts.at(place))}


def _beyond(file: MappedFile) -> int:
    if file.size is None or file.fstype == "hugetlbfs":
        return 0
    return beyond_end(file.mappings, file.size)


def _file(
    mount: Mount, mappings: list[Mapping], remote: bool, places: MountNamespaces
) -> tuple[tuple[int, int], MappedFile] | None:
    """Return the file of some mappings and its identity; None if it is gone, or no regular file."""
    first = mappings[0]
    asked = None
    if remote or filesystems.rules(mount.fstype).local:
        try:
            asked = files.status(mappings)
        except FileNotFoundError:
            return None
        if asked and not stat.S_ISREG(asked.st_mode):
            return None
    identity = (asked.st_dev, asked.st_ino) if asked else (first.dev, first.inode)
    named_deleted = first.name.endswith(_DELETED)
    deleted = asked.st_nlink == 0 if asked else named_deleted
    return identity, MappedFile(
        path=first.name.removesuffix(_DELETED) if deleted else first.name,
        deleted=deleted,
        dev=mount.dev,
        inode=first.inode,
        fstype=mount.fstype,
        mountpoint=mount.mountpoint,
        source=mount.source,
        size=asked.st_size if asked else None,
        allocated=asked.st_blocks * 512 if asked else None,
        mappings=tuple(mappings),
        enter=places.enter(mount, first.pid),
        here="" if deleted or asked is None else _here(first, asked, places),
    )


def _here(mapping: Mapping, file: os.stat_result, places: MountNamespaces) -> str:
    """Return a path to a file with a name: through the mapping where it is in no mount of ours, nor below that root."""
    pid = mapping.pid
    found = path_here(mapping.name, file, mapping.dev, places.own, places.seen_by(pid), [pid])
    return found or link(mapping)


def _merge(parts: list[MappedFile]) -> MappedFile:
    """One file that was found under several names: hard links, bind mounts, chroots."""
    if len(parts) == 1:
        return parts[0]
    best = min(parts, key=lambda part: (part.deleted, len(part.path), part.path))
    return replace(best, mappings=tuple(mapping for part in parts for mapping in part.mappings))


def _huge(mapping: Mapping) -> Mount | None:
    """Return a stand-in for the kernel's own hugetlbfs mount, if that is where a mapping's memory is from.

    Raises PermissionError where that may not be seen.
    """
    if not mapping.name.startswith(_HUGE_NAMES):
        return None
    try:
        huge = os.statvfs(link(mapping)).f_bsize >= _HUGE_BYTES
    except PermissionError:
        raise
    except OSError:
        return None
    return Mount(0, mapping.dev, "/", "", (), "hugetlbfs", "", ()) if huge else None
