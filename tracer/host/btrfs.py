"""What a btrfs has left: statfs(2) knows nothing of what is promised but not written."""

from __future__ import annotations

import contextlib
import fcntl
import struct
import uuid
from pathlib import Path
from typing import Final

from tracer.host.quota import Quota
from tracer.model.host_state import ChunkState

_FS_INFO: Final = 0x8400941F
_FS_INFO_BYTES: Final = 1024
_DEV_INFO: Final = 0xD000941E
_DEV_INFO_BYTES: Final = 4096
_INO_LOOKUP: Final = 0xD0009412
_INO_LOOKUP_BYTES: Final = 4096
#: The inode of a subvolume's root.
FIRST_FREE_OBJECTID: Final = 256
_SUBVOL_INFO: Final = 0x81F8943C
_SUBVOL_INFO_BYTES: Final = 504
#: Where struct btrfs_ioctl_get_subvol_info_args has the flags, and the one of a read-only subvolume.
_FLAGS_AT: Final = 288
_SUBVOL_RDONLY: Final = 1
#: The beginning of each device that is never given away (BTRFS_DEVICE_RANGE_RESERVED in fs/btrfs/fs.h).
_RESERVED: Final = 1 << 20

_SYSFS: Final = Path("/sys/fs/btrfs")
#: What a chunk's bytes may be; the rest of them are free.
_TAKEN: Final = ("used", "pinned", "reserved", "may_use", "readonly")


def data_free(fd: int) -> int:
    """Bytes that data may still take, on the filesystem of an open file: in data chunks, and where no chunk is yet.

    Metadata chunks come from the latter, too. Raises OSError, or ValueError if sysfs is not as it should be.
    """
    highest, name = _filesystem(fd)
    data = _SYSFS / name / "allocation/data"
    free = _number(data / "total_bytes")
    free -= sum(_number(data / f"bytes_{what}") for what in _TAKEN)
    copies = _number(data / "disk_total") / max(1, _number(data / "total_bytes"))
    return max(0, free + int(_without_chunk(fd, highest) / max(1.0, copies)))


def subvolume(fd: int) -> int:
    """Return the id of the subvolume that a file is in. Raises OSError."""
    buffer = bytearray(_INO_LOOKUP_BYTES)
    struct.pack_into("=QQ", buffer, 0, 0, FIRST_FREE_OBJECTID)
    fcntl.ioctl(fd, _INO_LOOKUP, buffer)
    return int(struct.unpack_from("=Q", buffer)[0])


def subvolume_read_only(fd: int) -> bool:
    """Whether the subvolume that a file is in was made read-only. Raises OSError."""
    buffer = bytearray(_SUBVOL_INFO_BYTES)
    fcntl.ioctl(fd, _SUBVOL_INFO, buffer)
    return bool(struct.unpack_from("=Q", buffer, _FLAGS_AT)[0] & _SUBVOL_RDONLY)


def chunks(fd: int) -> tuple[ChunkState, ...]:
    """How the space is divided among data and metadata: what is in chunks of each, and in none yet.

    Raises OSError, or ValueError if sysfs is not as it should be.
    """
    highest, name = _filesystem(fd)
    found = []
    for kind in ("data", "metadata"):
        place = _SYSFS / name / "allocation" / kind
        total = _number(place / "total_bytes")
        taken = sum(_number(place / f"bytes_{what}") for what in _TAKEN)
        found.append(ChunkState(kind, total, max(0, total - taken)))
    rest = _without_chunk(fd, highest)
    return (*found, ChunkState("unallocated", rest, rest))


def quota(fd: int, subvolume_id: int) -> Quota | None:
    """Return what the quota group of a subvolume has left; None without a limit.

    Groups of groups cannot be seen here.
    """
    group = _SYSFS / _filesystem(fd)[1] / f"qgroups/0_{subvolume_id}"
    try:
        flags = _number(group / "limit_flags")
        promised = sum(_number(path) for path in group.glob("rsv_*"))
        left = []
        for bit, kind in ((1, "referenced"), (2, "exclusive")):
            if flags & bit:
                limit = _number(group / f"max_{kind}")
                left.append(Quota(max(0, limit - _number(group / kind) - promised), limit))
    except (OSError, ValueError):
        return None
    return min(left, key=lambda one: one.free, default=None)


def _filesystem(fd: int) -> tuple[int, str]:
    """Return the highest device id, and the name that sysfs has for the filesystem of an open file."""
    buffer = bytearray(_FS_INFO_BYTES)
    fcntl.ioctl(fd, _FS_INFO, buffer)
    return int(struct.unpack_from("=Q", buffer)[0]), str(uuid.UUID(bytes=bytes(buffer[16:32])))


def _without_chunk(fd: int, highest: int) -> int:
    """Bytes of all devices that belong to no chunk yet."""
    total = 0
    for device in range(1, highest + 1):
        buffer = bytearray(_DEV_INFO_BYTES)
        struct.pack_into("=Q", buffer, 0, device)
        with contextlib.suppress(OSError):  # no device of this id
            fcntl.ioctl(fd, _DEV_INFO, buffer)
            used, size = struct.unpack_from("=QQ", buffer, 24)
            total += max(0, size - used - _RESERVED)
    return total


def _number(path: Path) -> int:
    return int(path.read_text())
