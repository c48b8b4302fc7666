"""Every mounted filesystem, and what it does with a write to a mapping: ``doctor --filesystems``.

What is said of each follows from its type and mount options (``model.filesystems``), and from which functions this
kernel has; nothing is asked of the filesystem, so that one that hangs keeps nobody waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final

from tracer.host.mounts import preferred
from tracer.host.peers import DAEMONS, FuseDaemon, Peer, peer_of
from tracer.model.calls import device_name
from tracer.model.filesystems import PSEUDO, Refusal, rules
from tracer.model.mounts import Mount
from tracer.text import counted, printable

# 9p's cache bits (enum p9_cache_bits, fs/9p/v9fs.h), which newer kernels show in hex; older ones show the names.
_9P_WRITEBACK: Final = 0x4
_9P_MAPS: Final = frozenset({"mmap", "loose", "fscache"})


@dataclass(frozen=True, slots=True)
class MountedFilesystem:
    """One mounted filesystem.

    ``handlers``: what is asked when a page is written, empty where nothing is. ``refusal`` is MAPPING where no shared
    writable mapping can be made here at all. ``known`` is false for a type that nothing is known of.
    """

    mount: Mount
    handlers: tuple[str, ...]
    refusal: Refusal
    errno: bool
    source: str
    peer: Peer | None
    known: bool = True

    @property
    def notifies(self) -> bool:
        """Whether a write to a page that is mapped read-only is told to the filesystem."""
        return bool(self.handlers)

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return {
            "mountpoint": printable(self.mount.mountpoint),
            "fstype": printable(self.mount.fstype),
            "device": device_name(self.mount.dev),
            "source": printable(self.mount.source),
            "peer": printable(self.peer.name) if self.peer else None,
            "peer_pid": self.peer.pid if self.peer else None,
            "handlers": list(self.handlers),
            "notifies": self.notifies if self.known else None,
            "refusal": self.refusal.value,
            "errno_exact": self.errno if self.known else None,
            "kernel_source": self.source or None,
        }


def filesystems(
    mounts: Iterable[Mount], daemons: Sequence[FuseDaemon], has: Callable[[str], bool]
) -> list[MountedFilesystem]:
    """One row for each device that is mounted, by mount point. ``has``: whether the kernel has a function now."""
    by_device: dict[int, list[Mount]] = {}
    for mount in mounts:
        if mount.fstype not in PSEUDO:
            by_device.setdefault(mount.dev, []).append(mount)
    chosen = [best for group in by_device.values() if (best := preferred(group)) is not None]
    found = [_row(mount, _behind(mount, chosen), daemons, has) for mount in chosen]
    return sorted(found, key=lambda row: row.mount.mountpoint)


def unknown_peers(rows: Iterable[MountedFilesystem], hidden: Callable[[], int]) -> tuple[str, ...]:
    """In a sentence, the FUSE filesystems whose daemons could not be seen; ``hidden`` counts processes that may be."""
    lacking = [row.mount.mountpoint for row in rows if row.mount.kernel_type in DAEMONS and row.peer is None]
    if not lacking or not (number := hidden()):
        return ()
    processes = counted(number, "process", "processes")
    mounts = ", ".join(map(printable, lacking))
    return (f"The daemons of {mounts}: {processes} may not be looked at; that takes CAP_SYS_PTRACE.",)


def _row(mount: Mount, behind: Mount, daemons: Sequence[FuseDaemon], has: Callable[[str], bool]) -> MountedFilesystem:
    """``behind`` is the mount whose filesystem the files are on.

    With dax=inode, the default, some files of a filesystem on a DAX device may be DAX: that is not told here.
    """
    known = rules(behind.fstype)
    if known.older is not None and not has(known.handler):
        known = known.older
    if known.dax is not None and not {"dax", "dax=always"}.isdisjoint(behind.super_options):
        known = known.dax
    refusal = Refusal.MAPPING if _maps_nothing(behind) else known.refusal
    return MountedFilesystem(
        mount,
        (known.handler, *known.also) if known.handler and refusal is not Refusal.MAPPING else (),
        refusal,
        known.errno and refusal is Refusal.FAULT,
        known.source,
        peer_of(behind, daemons),
        bool(known.source),
    )


def _behind(mount: Mount, mounts: Sequence[Mount]) -> Mount:
    """Return the filesystem of an overlay's upper directory, where that is seen here; else the mount itself.

    A mapping of an overlay's file is one of the file below (ovl_mmap, fs/overlayfs/file.c).
    """
    if mount.fstype != "overlay":
        return mount
    upper = next((option[9:] for option in mount.super_options if option.startswith("upperdir=")), "")
    around = [other for other in mounts if PurePath(upper).is_relative_to(other.mountpoint)]
    found = max(around, key=lambda other: len(other.mountpoint), default=mount)
    # In a container the upper directory's path is the host's, and seems to lie on the overlay itself.
    return mount if found.fstype == "overlay" else found


def _maps_nothing(mount: Mount) -> bool:
    """9p without a cache that is written back (v9fs_file_mmap, fs/9p/vfs_file.c)."""
    if mount.fstype != "9p":
        return False
    cache = next((option[6:] for option in mount.super_options if option.startswith("cache=")), "none")
    try:
        return not int(cache, 16) & _9P_WRITEBACK
    except ValueError:
        return cache not in _9P_MAPS
