"""Disks that stop when they are told to, or are slow: device-mapper devices on files."""

from __future__ import annotations

import ctypes as ct
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live.guest import ROOT, run

WAITER = shutil.copy(os.environ["WAITER"], "/tmp/waiter")
_SECTOR = 512
_MIB = 1 << 20
_SYNC_FILE_RANGE_WRITE = 2
# There is no udev to wait for.
_DMSETUP = ("env", "DM_DISABLE_UDEV=1", "dmsetup")


class Disk:
    """A mounted filesystem on a disk that can be stopped; its pages must not change while they are written back.

    With ``delay_ms`` it is slow instead, and pages may change.
    """

    def __init__(self, fstype: str, mib: int, delay_ms: int = 0) -> None:
        self.name = f"{'slow' if delay_ms else 'waits'}-{fstype}"
        self.place = ROOT / self.name
        self.place.mkdir(parents=True, exist_ok=True)
        image = ROOT / f"{self.name}.img"
        with image.open("wb") as stream:
            stream.truncate(mib * _MIB)
        run("modprobe", "-a", "loop", "dm-mod", "dm-delay", fstype)
        run(f"mkfs.{fstype}", "-q", str(image))
        loop = run("losetup", "--find", "--show", str(image)).strip()
        target = f"delay {loop} 0 0 {loop} 0 {delay_ms}" if delay_ms else f"linear {loop} 0"
        run(*_DMSETUP, "create", self.name, "--table", f"0 {mib * _MIB // _SECTOR} {target}")
        device = Path("/dev/mapper", self.name).resolve()
        # include/linux/backing-dev-defs.h: what a disk with checksums asks for.
        number = os.minor(device.stat().st_rdev)
        Path(f"/sys/block/dm-{number}/queue/stable_writes").write_text(str(int(not delay_ms)))
        run("mount", "-i", f"/dev/mapper/{self.name}", str(self.place))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Nothing that is written arrives."""
        run(*_DMSETUP, "suspend", "--nolockfs", "--noflush", self.name)
        try:
            yield
        finally:
            run(*_DMSETUP, "resume", self.name)


class Waiter:
    """A process that stores to pages when it is told to, and measures how long that takes."""

    def __init__(self, path: Path, pages: int) -> None:
        self._process = subprocess.Popen(
            [WAITER, str(path), str(pages)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._line() == "mapped"

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def store(self, first: int, number: int = 1) -> None:
        """Let it store to so many pages."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {number}\n")
        self._process.stdin.flush()

    def took(self) -> int:
        """How long the stores took, in ns; waits for them."""
        return int(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        """Let it go; its end must be good."""
        self._process.communicate()
        assert self._process.returncode == 0


def write_back(path: Path, page: int) -> None:
    """Change a page of a file through write(2), and begin to write it back."""
    with path.open("r+b", buffering=0) as stream:
        os.pwrite(stream.fileno(), b"y", page * 4096)
        libc = ct.CDLL(None, use_errno=True)
        done = libc.sync_file_range(stream.fileno(), ct.c_int64(page * 4096), ct.c_int64(4096), _SYNC_FILE_RANGE_WRITE)
        assert done == 0, os.strerror(ct.get_errno())


def hold(seconds: float = 0.7) -> None:
    """For how long things are kept from going on: long beside what an emulated CPU needs for anything else."""
    time.sleep(seconds)
