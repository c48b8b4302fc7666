"""What a filesystem has left, for everybody and for root; the pools of huge pages."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.host import btrfs
from tracer.model.calls import device_name

#: More than any filesystem has: what one without a limit has left.
UNLIMITED: Final = 1 << 62

_HUGE: Final = Path("/sys/kernel/mm/hugepages")


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes that are left to everybody, to root, and in all (0: no limit); ``block`` is the size of a block."""

    block: int
    free: int
    free_to_root: int
    total: int = 0


def space(fd: int, fstype: str, dev: int) -> Space:
    """Return what is left on the filesystem of an open file. Raises OSError."""
    status = os.fstatvfs(fd)
    block = status.f_frsize
    if not status.f_blocks and fstype in ("tmpfs", "devtmpfs"):  # mounted without a size
        return Space(block, UNLIMITED, UNLIMITED)
    free, total = status.f_bavail * block, status.f_blocks * block
    if fstype == "btrfs":
        with contextlib.suppress(OSError, ValueError):  # without sysfs: statfs(2) is nearly right
            free = btrfs.data_free(fd)
        return Space(block, free, free, total)
    if fstype in ("ext2", "ext3", "ext4"):
        return Space(block, free, max(free, status.f_bfree * block - _ext4_reserved(dev, block)), total)
    return Space(block, free, status.f_bfree * block if fstype == "f2fs" else free, total)


def _ext4_reserved(dev: int, block: int) -> int:
    """Bytes that not even root gets: kept for extents that are turned from unwritten to written.

    ``ext4_has_free_clusters`` in fs/ext4/balloc.c. A cluster is taken for a block: not so with bigalloc.
    """
    try:
        name = Path(f"/sys/dev/block/{device_name(dev)}").resolve(strict=True).name
        return int(Path(f"/sys/fs/ext4/{name}/reserved_clusters").read_text()) * block
    except (OSError, ValueError):
        return UNLIMITED


def huge_pages_free(page: int, *, unreserved: bool) -> tuple[int, int] | None:
    """Bytes in free huge pages of ``page`` bytes, and in all; ``unreserved``: not those that are promised to others."""
    pool = _HUGE / f"hugepages-{page >> 10}kB"
    try:
        total, free, promised = (int((pool / f"{name}_hugepages").read_text()) for name in ("nr", "free", "resv"))
        extra = int((pool / "nr_overcommit_hugepages").read_text()) - int((pool / "surplus_hugepages").read_text())
    except (OSError, ValueError):
        return None
    return (free + max(0, extra) - (promised if unreserved else 0)) * page, total * page


def huge_cgroup_free(root: str, cgroup: str, page: int) -> tuple[str, int] | None:
    """Return which of a cgroup and those above it has the least left, and how many bytes; None without a limit."""
    name = _huge_name(page)
    least = None
    at = Path(cgroup)
    for group in (at, *at.parents):
        directory = Path(root, str(group).lstrip("/"))
        try:
            most = (directory / f"hugetlb.{name}.max").read_text().strip()
            used = int((directory / f"hugetlb.{name}.current").read_text())
        except (OSError, ValueError):
            continue
        if most != "max" and (least is None or int(most) - used < least[1]):
            least = (str(group), int(most) - used)
    return least


def huge_cgroup_refusals(root: str, cgroup: str, page: int) -> int:
    """How often the limit of a cgroup or of one below it has refused a huge page so far; 0 where nothing says so.

    ``hugetlb_event`` in mm/hugetlb_cgroup.c.
    """
    try:
        events = Path(root, cgroup.lstrip("/"), f"hugetlb.{_huge_name(page)}.events").read_text().split()
        return int(events[events.index("max") + 1])
    except (OSError, ValueError, IndexError):
        return 0


def _huge_name(page: int) -> str:
    return f"{page >> 30}GB" if page >= 1 << 30 else f"{page >> 20}MB" if page >= 1 << 20 else f"{page >> 10}KB"
