"""What a mapped file's writes can run into: space, quotas, pools; each filesystem is asked once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from tracer.host import btrfs
from tracer.host.images import Image, image_of
from tracer.host.mapped import MappedFile
from tracer.host.mounts import Mounts, preferred
from tracer.host.processes import Process
from tracer.host.quota import GROUP, PROJECT, USER, Quota, Quotas, project_of
from tracer.host.space import UNLIMITED, Space, huge_cgroup_free, huge_pages_free, space
from tracer.host.thin import pool_free
from tracer.mappings.risk import Limit, LimitedFilesystem, LimitKind
from tracer.text import size_text

#: Linux's own quotas let CAP_SYS_RESOURCE pass (ignore_hardlimit in fs/quota/dquot.c); those of xfs do not.
_UNPRIVILEGED_ONLY: Final = ("ext2", "ext3", "ext4", "f2fs", "tmpfs")
_KINDS: Final = ((USER, LimitKind.USER), (GROUP, LimitKind.GROUP), (PROJECT, LimitKind.PROJECT))


class Limits:
    """The limits of one look at the host: what is left does not change while this object lives."""

    def __init__(self) -> None:
        self._spaces: dict[int, Space] = {}
        self._quotas: dict[int, Quotas] = {}
        self._pools: dict[int, tuple[str, int] | None] = {}
        self._images: dict[int, Image | None] = {}
        self._subvolumes: dict[tuple[int, int], Quota | None] = {}
        cgroups = preferred(mount for mount in Mounts.read() if mount.fstype == "cgroup2")
        #: What may limit them, and could not be seen.
        self.unseen: set[str] = set()
        self._cgroups = cgroups.mountpoint if cgroups else ""

    def space(self, fd: int, file: MappedFile) -> Space:
        """Return what is left on the file's filesystem. Raises OSError."""
        if file.dev not in self._spaces:
            self._spaces[file.dev] = space(fd, file.fstype, file.dev)
        return self._spaces[file.dev]

    def of(self, fd: int, file: MappedFile, place: LimitedFilesystem, writers: Sequence[Process]) -> tuple[Limit, ...]:
        """Return the limits that the writes of ``writers`` to an open file meet. Raises OSError."""
        left = self.space(fd, file)
        privileged = bool(writers) and all(writer.privileged for writer in writers)
        if privileged and left.free_to_root > left.free:
            limits = [Limit(place, LimitKind.ROOT_SPACE, "", left.free_to_root, left.total)]
        else:
            limits = [Limit(place, LimitKind.SPACE, "", left.free, left.total)] if left.free < UNLIMITED else []
        if not (privileged and file.fstype in _UNPRIVILEGED_ONLY):
            limits += self._quota(fd, file, place)
        if file.dev not in self._pools:
            self._pools[file.dev] = self._pool(file, place)
        if pool := self._pools[file.dev]:
            limits.append(Limit(place, LimitKind.THIN_POOL, pool[0], pool[1]))
        if file.dev not in self._images:
            self._images[file.dev] = image_of(file.dev)
        if image := self._images[file.dev]:
            limits.append(Limit(place, LimitKind.IMAGE, image.path, image.free, image.size))
        if file.fstype == "btrfs":
            limits += self._subvolume(fd, file, place)
        return tuple(limits)

    def _quota(self, fd: int, file: MappedFile, place: LimitedFilesystem) -> list[Limit]:
        if file.dev not in self._quotas:
            self._quotas[file.dev] = Quotas(fd, file.dev, file.source)
        quotas = self._quotas[file.dev]
        if not quotas.enforced:
            return []
        status = os.fstat(fd)
        numbers = (status.st_uid, status.st_gid, project_of(fd) if PROJECT in quotas.enforced else 0)
        limits = []
        for (kind, name), number in zip(_KINDS, numbers, strict=True):
            if file.fstype == "xfs" and not number:
                continue  # not enforced (xfs_trans_dqresv in fs/xfs/xfs_trans_dquot.c)
            if left := quotas.left(fd, kind, number):
                limits.append(Limit(place, name, str(number), left.free, left.limit))
        if quotas.refused:
            self.unseen.add(f"Quotas on {place.mountpoint}: those of others take CAP_SYS_ADMIN to see.")
        return limits

    def _pool(self, file: MappedFile, place: LimitedFilesystem) -> tuple[str, int] | None:
        try:
            return pool_free(file.dev)
        except OSError:
            self.unseen.add(f"Whether {place.mountpoint} is on a thin pool: to see it takes CAP_SYS_ADMIN, dmsetup.")
            return None

    def _subvolume(self, fd: int, file: MappedFile, place: LimitedFilesystem) -> list[Limit]:
        try:
            number = btrfs.subvolume(fd)
        except OSError:
            return []
        if (file.dev, number) not in self._subvolumes:
            self._subvolumes[file.dev, number] = btrfs.quota(fd, number)
        left = self._subvolumes[file.dev, number]
        return [] if left is None else [Limit(place, LimitKind.SUBVOLUME, f"0/{number}", left.free, left.limit)]

    def of_huge_pages(
        self, fd: int, page: int, place: LimitedFilesystem, writers: Sequence[Process], *, unreserved: bool
    ) -> tuple[Limit, ...]:
        """Return the limits that first writes to huge pages of ``page`` bytes meet: one pool for all mounts."""
        limits = []
        mounted = os.fstatvfs(fd)
        if mounted.f_blocks:
            limits.append(Limit(place, LimitKind.SPACE, "", mounted.f_bavail * page, mounted.f_blocks * page))
        place = LimitedFilesystem(place.fstype, f"pages of {size_text(page)}", 0)
        free = huge_pages_free(page, unreserved=unreserved)
        if free is not None:
            limits.append(Limit(place, LimitKind.HUGE_PAGES, "unreserved" if unreserved else "", *free))
        for cgroup in sorted({writer.cgroup for writer in writers if self._cgroups and writer.cgroup}):
            if left := huge_cgroup_free(self._cgroups, cgroup, page):
                limits.append(Limit(place, LimitKind.HUGE_CGROUP, left[0], left[1]))
        return tuple(limits)
