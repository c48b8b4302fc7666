"""Filesystems that accept what they lose later: ext4 in a file of a full tmpfs, FUSE. And who writes to them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from tests.live.guest import ROOT, eventually, load_modules, run

_WRITER = Path(__file__).with_name("late_writer.py")


class Writer:
    """A process that takes the steps of late_writer.py."""

    def __init__(self, file: Path, pages: int, *stride: int) -> None:
        self.file = file
        command = [sys.executable, str(_WRITER), str(file), *map(str, (pages, *stride))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def comm(self) -> str:
        """Its name."""
        return Path(f"/proc/{self.pid}/comm").read_text().rstrip("\n")

    def does(self, step: str) -> str:
        """Take a step; "ok", or the name of its errno."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(step, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().rstrip("\n")

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()


class FullBelow:
    """An ext4 with space on a device without: ``fill`` leaves no page for what is not there yet."""

    def __init__(self, name: str) -> None:
        self._below = ROOT / f"{name}-below"
        self.place = ROOT / name
        for place in (self._below, self.place):
            place.mkdir(parents=True)
        load_modules("loop", "ext4")
        run("mount", "-t", "tmpfs", "-o", "size=24m,huge=never", "none", str(self._below))
        image = self._below / "image"
        with image.open("wb") as stream:
            stream.truncate(512 << 20)
        # Metadata is all there before it is full.
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", "-N", "128", str(image))
        run("mount", "-o", "loop", str(image), str(self.place))

    def fill(self) -> None:
        """Take all space from the device. What files have by then stays writable."""
        self.write_back()
        with (self._below / "filler").open("wb", buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(bytes(4096))

    def write_back(self) -> None:
        """Write everything back, and tell no program of a file's errors."""
        subprocess.run(["sync", "-f", str(self.place)], stderr=subprocess.DEVNULL, check=False)

    def close(self) -> None:
        """Unmount and remove everything."""
        for place in (self.place, self._below):
            run("umount", str(place))
            place.rmdir()


@contextmanager
def full_below(name: str) -> Iterator[FullBelow]:
    """A filesystem of that name for a while."""
    made = FullBelow(name)
    try:
        yield made
    finally:
        made.close()


class FullFuse:
    """A FUSE filesystem that its daemon keeps in a small image."""

    def __init__(self, name: str) -> None:
        self.place = ROOT / name
        self.place.mkdir(parents=True)
        load_modules("fuse")
        self._image = ROOT / f"{name}.img"
        with self._image.open("wb") as stream:
            stream.truncate(16 << 20)
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-N", "16", str(self._image))
        self._daemon = subprocess.Popen(["fuse2fs", "-f", str(self._image), str(self.place), "-o", "rw"])
        assert eventually(self.place.is_mount)

    def fill(self) -> None:
        """Take all space."""
        with (self.place / "filler").open("wb", buffering=0) as stream, suppress(OSError):
            while True:
                stream.write(bytes(4096))

    def write_back(self) -> None:
        """Write everything back."""
        subprocess.run(["sync", "-f", str(self.place)], stderr=subprocess.DEVNULL, check=False)

    def close(self) -> None:
        """Unmount and remove everything."""
        run("umount", str(self.place))
        self._daemon.wait(timeout=60)
        self._image.unlink()
        self.place.rmdir()


class ThinPool:
    """An ext4 of 512 MiB on a thin pool of 32, which refuses what it has no space for (error_if_no_space)."""

    def __init__(self, name: str) -> None:
        self.place = ROOT / name
        self.place.mkdir(parents=True)
        load_modules("loop", "dm_mod", "dm_thin_pool", "ext4")
        self._pool, self._thin = f"{name}-pool", f"{name}-thin"
        data, meta = (self._loop(ROOT / f"{name}-{what}.img", size) for what, size in (("data", 32), ("meta", 4)))
        sectors = (32 << 20) // 512
        self._dm("create", self._pool, "--table", f"0 {sectors} thin-pool {meta} {data} 128 0 1 error_if_no_space")
        self._dm("message", self._pool, "0", "create_thin 0")
        run("dmsetup", "mknodes")
        self._dm("create", self._thin, "--table", f"0 {(512 << 20) // 512} thin /dev/mapper/{self._pool} 0")
        run("dmsetup", "mknodes")
        run("mkfs.ext4", "-q", "-O", "^has_journal", f"/dev/mapper/{self._thin}")
        self.mount()

    def mount(self) -> None:
        """Mount it."""
        run("mount", f"/dev/mapper/{self._thin}", str(self.place))

    def write_back(self) -> None:
        """Write everything back, and tell no program of a file's errors."""
        subprocess.run(["sync", "-f", str(self.place)], stderr=subprocess.DEVNULL, check=False)

    def forget(self) -> None:
        """Unmount and mount it, so that files are read from the device."""
        run("umount", str(self.place))
        self.mount()

    @staticmethod
    def _loop(image: Path, size: int) -> str:
        with image.open("wb") as stream:
            stream.truncate(size << 20)
        return run("losetup", "-f", "--show", str(image)).strip()

    def _dm(self, *arguments: str) -> None:
        run("dmsetup", "--noudevsync", *arguments)
