"""The file that a loop device is made of: a sparse one asks for space where it lies, when the device is written to."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.model.calls import device_name

_DEVICES: Final = Path("/sys/dev/block")
#: struct loop_info64 (include/uapi/linux/loop.h) begins with the device and the inode of the file.
_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_INFO_BYTES: Final = 232
_LOOP_INFO: Final = struct.Struct("=QQ")
#: Devices on top of each other, at most.
_DEEPEST: Final = 8


@dataclass(frozen=True, slots=True)
class Image:
    """A sparse file below a block device: bytes that are free to it, and its size."""

    path: str
    free: int
    size: int


def image_of(dev: int) -> Image | None:
    """Return the image below a block device ("major:minor") that its filesystem cannot give all that it lacks.

    Partitions, device mapper and md are followed down to it, an image on another image as well. None without one, and
    where its path leads to another file here.
    """
    level = [device_name(dev)]
    for _ in range(_DEEPEST):
        below: list[str] = []
        for device in level:
            path = _file_of(device)
            if path is not None:
                status, space = path.stat(), os.statvfs(path)
                free = space.f_bavail * space.f_frsize
                if status.st_size - status.st_blocks * 512 > free:
                    return Image(str(path), free, status.st_size)
                below.append(f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}")
            below += _slaves(device)
        level = below
    return None


def _file_of(device: str) -> Path | None:
    """Return the file of a loop device, by its path here."""
    with suppress(OSError, ValueError):
        path = Path(os.fsdecode((_DEVICES / device / "loop" / "backing_file").read_bytes().removesuffix(b"\n")))
        name = (_DEVICES / device).resolve().name
        status = path.stat()
        handle = os.open(f"/dev/{name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            info = fcntl.ioctl(handle, _LOOP_GET_STATUS64, bytes(_LOOP_INFO_BYTES))
        finally:
            os.close(handle)
        if _LOOP_INFO.unpack_from(info)[1] == status.st_ino:
            return path
    return None


def _slaves(device: str) -> list[str]:
    """Return what a device is made of: the disk of a partition, those below of device mapper and md."""
    directory = _DEVICES / device
    found = []
    with suppress(OSError):
        found = [(slave / "dev").read_text().strip() for slave in (directory / "slaves").iterdir()]
    with suppress(OSError):
        if (directory / "partition").exists():
            found.append((directory.resolve().parent / "dev").read_text().strip())
    return found
