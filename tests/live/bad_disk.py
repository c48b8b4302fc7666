"""A disk that fails while a file on it is mapped."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path

from tests.live.guest import ROOT, give_back, run
from tests.live.refusals import SIZE

#: include/uapi/linux/fs.h
_FIBMAP, _FIGETBSZ = 1, 2


class BadDisk:
    """A filesystem on a device that can be made to fail, with a file of data."""

    def __init__(self, name: str, fstype: str = "ext4", size: int = 32, options: str = "") -> None:
        """``size`` is in MiB, ``options`` are those of mount(8)."""
        self._name = name
        image = ROOT / f"{name}.img"
        with image.open("wb") as stream:
            stream.truncate(size << 20)
        run("modprobe", "-a", "loop", "dm_mod", fstype)
        self._loop = run("losetup", "-f", "--show", str(image)).strip()
        self._sectors = (size << 20) // 512
        self._dm("create", name, "--table", f"0 {self._sectors} linear {self._loop} 0")
        run("dmsetup", "mknodes")
        run(f"mkfs.{fstype}", "-q", f"/dev/mapper/{name}")
        give_back(image)
        self.place = ROOT / name
        self.place.mkdir()
        run("mount", *(("-o", options) if options else ()), f"/dev/mapper/{name}", str(self.place))
        self.file = self.place / "file"
        self.file.write_bytes(bytes(SIZE))
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")

    def fail(self) -> None:
        """From now on, nothing can be read or written."""
        self._load(f"0 {self._sectors} error")

    def fail_at(self, offset: int) -> None:
        """From now on, the file's block at ``offset`` can be neither read nor written, and all else can."""
        with self.file.open("rb") as stream:
            (size,) = struct.unpack("i", fcntl.ioctl(stream, _FIGETBSZ, bytes(4)))
            (block,) = struct.unpack("i", fcntl.ioctl(stream, _FIBMAP, struct.pack("i", offset // size)))
        first, end = block * size // 512, (block + 1) * size // 512
        self._load(
            f"0 {first} linear {self._loop} 0",
            f"{first} {end - first} error",
            f"{end} {self._sectors - end} linear {self._loop} {end}",
        )

    def _load(self, *table: str) -> None:
        self._dm("suspend", "--nolockfs", self._name)
        load = ["dmsetup", "--noudevsync", "load", self._name]
        subprocess.run(load, input="\n".join(table), text=True, check=True)
        self._dm("resume", self._name)

    def _dm(self, *arguments: str) -> None:
        run("dmsetup", "--noudevsync", *arguments)
