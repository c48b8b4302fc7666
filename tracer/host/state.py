"""The state of a host at the moment of a failure, from the victim's mount namespace where it still lives."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Final

from tracer.host import btrfs, processes
from tracer.host.below import Belows
from tracer.host.cgroups import Cgroups
from tracer.host.extents import backing
from tracer.host.mappers import NOBODY, Mappers
from tracer.host.mounts import Mounts
from tracer.host.opener import OPENER
from tracer.host.quota import GROUP, PROJECT, USER, Quotas, project_of
from tracer.host.reach import Found, MountFinder, path_here
from tracer.host.space import huge_cgroup_free, huge_cgroup_refusals, space
from tracer.model.failures import Fact, Failure, FailureSource
from tracer.model.filesystems import rules
from tracer.model.host_state import PARTLY, ChunkState, FileState, HostState, HugeState, QuotaState, SpaceState
from tracer.model.mounts import Mount

_PAGE: Final = 4096
#: Processes of the victim's cgroup that are looked at for its mounts: they are in one container, or in none.
_OTHERS: Final = 8
_HUGE: Final = Path("/sys/kernel/mm/hugepages")
_KINDS: Final = ((USER, "user"), (GROUP, "group"), (PROJECT, "project"))


class StateReader:
    """Reads the state for one failure after the other."""

    def __init__(self, has_ended: Callable[[Failure], bool]) -> None:
        """``has_ended``: whether the filesystem that a failure arose on has, and another may have its number."""
        self._mounts = MountFinder(has_ended)
        self._cgroups = Cgroups(Mounts.read())
        OPENER.start()
        self._mappers = Mappers()
        self._belows = Belows()

    def read(self, failure: Failure) -> HostState:
        """Return what can be learned now; what cannot be had is left out. Raises nothing."""
        after_ns = max(0, time.time_ns() - failure.time_ns)
        failure = replace(failure, pid=_seen_as(failure))
        process = None
        with suppress(OSError, KeyError, ValueError, IndexError):
            process = processes.read(failure.pid)
        cgroup = self._cgroups.path_of(failure.cgroup_id) if failure.cgroup_id else ""
        late = failure.source is FailureSource.WRITEBACK
        mapped = self._mappers.find(failure) if late else NOBODY
        others = (*islice(self._cgroups.members(cgroup), _OTHERS), *(one.pid for one in mapped.by[:_OTHERS]))
        found = self._mounts.find(failure, others)
        mount = found.mount if found else None
        enter, entered_at = (self._mounts.entry(failure, others) or (None, "")) if found else (None, "")
        directory, error = _open(found) if found and found.held and _answers(found.mount.fstype) else (None, 0)
        file = _open_file(failure, found) if found and directory is not None else None
        try:
            return HostState(
                after_ns=after_ns,
                running=process is not None,
                cgroup=cgroup,
                container=processes.container(cgroup),
                module=(failure.signal.module if failure.signal else "") or _module(failure),
                mountpoint=mount.mountpoint if mount else "",
                enter=enter,
                entered_at=entered_at,
                file_here=_file_here(failure, found, file, others, enter),
                subvolume=_subvolume(failure, found, file, others),
                cgroup_directory=f"{self._cgroups.root}{cgroup}" if cgroup.startswith("/") else "",
                host_pids=processes.host_pids(),
                mount_source=mount.source if mount else "",
                read_only=bool(failure.facts & Fact.READ_ONLY) or _has(mount, "ro", "emergency_ro"),
                subvolume_read_only=file is not None and mount is not None and _subvolume_read_only(file, mount),
                shut_down=(
                    bool(failure.facts & Fact.SHUT_DOWN)
                    or _stopped(failure)
                    or _has(mount, "shutdown")
                    or _lets_nothing_open(mount, error)
                ),
                limit=_limit(mount),
                space=None if directory is None or mount is None else _space(directory, mount),
                chunks=() if directory is None or mount is None else _chunks(directory, mount),
                quotas=() if directory is None or mount is None else tuple(_quotas(failure, directory, file, mount)),
                huge=_huge(failure, self._cgroups.root, cgroup),
                file=None if file is None else _file(failure, file),
                file_gone=found is not None and directory is not None and file is None and _is_gone(failure, found),
                below=self._belows.find(failure.dev) if late else None,
                mapped_by=mapped.by,
                mapped_name=mapped.name,
            )
        finally:
            if found:
                found.close()
            for descriptor in (directory, file):
                if descriptor is not None:
                    os.close(descriptor)


def _seen_as(failure: Failure) -> int:
    """Return the victim's pid in our /proc: in a container, its own namespace's if that is ours too; 0 if none."""
    with suppress(OSError):
        if processes.host_pids():
            return failure.pid
        comm = Path(f"/proc/{failure.namespace_pid}/comm").read_bytes().removesuffix(b"\n")
        return failure.namespace_pid if os.fsdecode(comm) == failure.comm else 0
    return 0


def _stopped(failure: Failure) -> bool:
    """Whether an ext4 said so: no transaction begins any more (ext4_journal_check_start in fs/ext4/ext4_jbd2.c).

    It has EIO for a filesystem that was shut down, and EROFS for one that is read-only or whose journal was aborted.
    """
    errnos = ("EIO",) if failure.facts & Fact.READ_ONLY else ("EIO", "EROFS")
    return failure.errno_from == "ext4_journal_check_start" and failure.errno_name in errnos


def _lets_nothing_open(mount: Mount | None, error: int) -> bool:
    """Whether an xfs said so: the first that xfs_file_open (fs/xfs/xfs_file.c) asks is whether it was shut down."""
    return mount is not None and mount.fstype == "xfs" and error == errno.EIO


def _has(mount: Mount | None, *options: str) -> bool:
    return mount is not None and not {*mount.options, *mount.super_options}.isdisjoint(options)


def _answers(fstype: str) -> bool:
    """Whether it can be asked without waiting for a server that may be dead."""
    return rules(fstype).local


def _limit(mount: Mount | None) -> str:
    options = mount.super_options if mount else ()
    return next((option.removeprefix("size=") for option in options if option.startswith("size=")), "")


def _open(found: Found) -> tuple[int | None, int]:
    """Return the root directory of a mount, and the errno if the filesystem lets it not be opened.

    None where another filesystem hides it.
    """
    where = [mount.mount_id for mount in found.mounts if mount.dev == found.mount.dev]
    return OPENER.directory(found.held[0], found.mount.mountpoint, where)


def _open_file(failure: Failure, found: Found) -> int | None:
    """Return the file itself, if it is still found under its name.

    Looked at before it is opened: no driver runs for it.
    """
    if not failure.file.startswith("/") or failure.deleted:
        return None
    return OPENER.file(found.held[0], failure.file, _where(failure, found), failure.inode)


def _where(failure: Failure, found: Found) -> list[int]:
    """Return the ids of mounts that may have the file: an overlay has its upper filesystem's by their inode numbers."""
    return [mount.mount_id for mount in found.mounts if mount.dev == failure.dev or mount.fstype == "overlay"]


def _is_gone(failure: Failure, found: Found) -> bool:
    """Whether the file had a name when it was refused and has none now; no answer is none."""
    if failure.deleted or failure.file.count("/") < 2:
        return False
    return OPENER.gone(found.held[0], failure.file, _where(failure, found), failure.inode)


def _file_here(
    failure: Failure, found: Found | None, file: int | None, others: Iterable[int], enter: str | None
) -> str:
    """Where a command finds the file, as ``HostState.file_here``."""
    if found is None or not failure.file.startswith("/") or failure.deleted:
        return ""
    if file is not None:
        return path_here(failure.file, os.fstat(file), failure.dev, Mounts.read(), found.mounts, others)
    if _answers(found.mount.fstype):
        return ""
    # What may not answer is not asked: the path is right if the mount is.
    return failure.file if enter == "" and PurePath(failure.file).is_relative_to(found.mount.mountpoint) else ""


def _subvolume(failure: Failure, found: Found | None, file: int | None, others: Iterable[int]) -> str:
    """Where a command finds the root of the btrfs subvolume that the file is in; "" where it does not."""
    if found is None or file is None or found.mount.fstype != "btrfs":
        return ""
    with suppress(OSError, ValueError):
        for above in PurePath(failure.file).parents:
            status = _status(str(above), found)
            if status and status.st_ino == btrfs.FIRST_FREE_OBJECTID:
                return path_here(str(above), status, failure.dev, Mounts.read(), found.mounts, others)
    return ""


def _status(directory: str, found: Found) -> os.stat_result | None:
    where = [mount.mount_id for mount in found.mounts if mount.dev == found.mount.dev]
    opened, _ = OPENER.directory(found.held[0], directory, where)
    if opened is None:
        return None
    try:
        return os.fstat(opened)
    finally:
        os.close(opened)


def _space(directory: int, mount: Mount) -> SpaceState | None:
    with suppress(OSError):
        status = os.fstatvfs(directory)
        left = space(directory, mount.fstype, mount.dev)
        return SpaceState(
            status.f_blocks * status.f_frsize, left.free, left.free_to_root, status.f_files, status.f_favail
        )
    return None


def _chunks(directory: int, mount: Mount) -> tuple[ChunkState, ...]:
    with suppress(OSError, ValueError):
        return btrfs.chunks(directory) if mount.fstype == "btrfs" else ()
    return ()


def _subvolume_read_only(file: int, mount: Mount) -> bool:
    with suppress(OSError):
        return mount.fstype == "btrfs" and btrfs.subvolume_read_only(file)
    return False


def _quotas(failure: Failure, directory: int, file: int | None, mount: Mount) -> Iterator[QuotaState]:
    with suppress(OSError, ValueError):
        if mount.fstype == "btrfs":
            subvolume = btrfs.subvolume(directory if file is None else file)
            if left := btrfs.quota(directory, subvolume):
                yield QuotaState("subvolume", subvolume, left.free, left.limit)
            return
        quotas = Quotas(directory, mount.dev, mount.source)
        if file is not None:
            # Quotas are charged to who owns the file, not to who writes.
            owner = os.fstat(file)
            numbers = (owner.st_uid, owner.st_gid, project_of(file))
        else:
            numbers = (failure.uid, failure.uid, 0)
        for (kind, name), number in zip(_KINDS, numbers, strict=True):
            if kind in quotas.enforced and (left := quotas.left(directory, kind, number)):
                yield QuotaState(name, number, left.free, left.limit)


def _huge(failure: Failure, root: Path | None, cgroup: str) -> HugeState | None:
    if failure.source is not FailureSource.HUGETLB:
        return None
    with suppress(OSError, ValueError):
        page = failure.huge_page
        pool = _HUGE / f"hugepages-{page >> 10}kB"
        total, free, reserved = (
            int((pool / f"{name}_hugepages").read_text()) for name in ("nr", "free", "resv")
        )  # fmt: skip
        limited = huge_cgroup_free(str(root), cgroup, page) if root else None
        if root is None or limited is None:
            return HugeState(page, total, free, reserved)
        refusals = huge_cgroup_refusals(str(root), limited[0], page)
        return HugeState(page, total, free, reserved, *limited, refusals)
    return None


def _file(failure: Failure, file: int) -> FileState | None:
    with suppress(OSError):
        status = os.fstat(file)
        kinds = None
        with suppress(OSError):
            page = (failure.offset, failure.offset + _PAGE)
            kinds = backing(file, [page], status.st_size, os.fstatvfs(file).f_frsize)
        names = ("holes", "promised", "unwritten", "shared", "encoded", "written")
        at = next((name for name in names if kinds and getattr(kinds, name)), "")
        if kinds and at == "holes":
            at = PARTLY if any(getattr(kinds, name) for name in names[1:]) else "hole"
        return FileState(status.st_size, status.st_blocks * 512, at)
    return None


def _module(failure: Failure) -> str:
    """``libc.so.6+0x1234``: the file and the offset in it of the instruction, while the victim has its mappings."""
    if not failure.ip:
        return ""
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{failure.pid}/maps").read_bytes().split(b"\n"):
            fields = line.split(maxsplit=5)
            if len(fields) < 6:
                continue
            start, end = (int(number, 16) for number in fields[0].split(b"-"))
            if start <= failure.ip < end:
                name = os.fsdecode(fields[5]).rpartition("/")[2]
                return f"{name}+{failure.ip - start + int(fields[2], 16):#x}"
    return ""
