"""Filesystems that accept what they lose later: ext4 in a file of a full tmpfs, FUSE. And who writes to them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.live.guest import ROOT, eventually, load_modules, lost, run
from tracer.kernel.preemption import preemptible
from tracer.model.failures import Failure
from tracer.model.hooks import Loss
from tracer.model.snapshot import Snapshot
from tracer.model.writeback import FileLoss
from tracer.session import Session

KERNEL = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
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


def loss_of(session: Session, writer: Writer) -> FileLoss:
    """What was lost of a file, in the filesystem that has the device number now."""
    status = writer.file.stat()
    dev = os.major(status.st_dev) << 20 | os.minor(status.st_dev)
    losses = session.file_losses()
    return losses[max(file for file in losses if (file.inode, file.dev) == (status.st_ino, dev))]


def of(failures: list[Failure], writer: Writer) -> list[Failure]:
    """Those of the file that it writes to."""
    return [failure for failure in failures if failure.file == str(writer.file)]


def missed(snapshot: Snapshot) -> int:
    """How often the kernel skipped the program that is told of errors: where it may be preempted, from 7.0 on."""
    return sum(hook.missed for hook in snapshot.hooks if hook.function == "filemap_set_wb_err")


def lost_but_for_missed(final: Snapshot) -> dict[Loss, int]:
    """What was lost besides."""
    assert preemptible() or missed(final) == 0
    return {**lost(final), Loss.MISSED_PROBE: lost(final)[Loss.MISSED_PROBE] - missed(final)}


def agree(found: Mapping[Any, int], expected: Mapping[Any, int], missed_runs: int) -> bool:
    """Whether that was found, but for at most so many that the kernel skipped and counted."""
    less = Counter(expected)
    less.subtract(found)
    return min(less.values()) >= 0 and sum(less.values()) <= missed_runs


def fill(directory: Path) -> None:
    """Leave no block there."""
    with (directory / "filler").open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(4096))


class FullBelow:
    """An ext4 with space on a device without: ``fill`` leaves no page for what is not there yet."""

    def __init__(self, name: str) -> None:
        self._below = ROOT / f"{name}-below"
        self.place = ROOT / name
        for place in (self._below, self.place):
            place.mkdir(parents=True)
        load_modules("loop", "ext4")
        run("mount", "-t", "tmpfs", "-o", "size=24m,huge=never", "none", str(self._below))
        self.image = self._below / "image"
        with self.image.open("wb") as stream:
            stream.truncate(512 << 20)
        # Metadata is all there before it is full.
        run("mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=0", "-N", "128", str(self.image))
        run("mount", "-o", "loop", str(self.image), str(self.place))

    def fill(self) -> None:
        """Take all space from the device. What files have by then stays writable."""
        self.write_back()
        fill(self._below)

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


@contextmanager
def bad_bitmap(name: str) -> Iterator[Path]:
    """The mount point of an ext4 of one group, which finds its bitmap of blocks bad when it allocates the first.

    What it counts as free it promises until then.
    """
    image, place = ROOT / f"{name}.img", ROOT / name
    place.mkdir(parents=True)
    load_modules("loop", "ext4")
    with image.open("wb") as stream:
        stream.truncate(64 << 20)
    run("mkfs.ext4", "-q", "-b", "4096", "-O", "^has_journal,metadata_csum", "-E", "lazy_itable_init=0", str(image))
    at = re.search(r"Block bitmap at (\d+)", run("dumpe2fs", str(image)))
    assert at
    with image.open("r+b") as stream:
        stream.seek(int(at[1]) * 4096 + 100)
        stream.write(b"\x55")
    # From 5.13 on bitmaps are read ahead.
    options = ["loop", "errors=continue"] + (["no_prefetch_block_bitmaps"] if KERNEL >= (5, 13) else [])
    run("mount", "-o", ",".join(options), str(image), str(place))
    try:
        yield place
    finally:
        run("umount", str(place))
        image.unlink()
        place.rmdir()


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
        fill(self.place)

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
        self._images = [ROOT / f"{name}-{what}.img" for what in ("data", "meta")]
        data, meta = (self._loop(image, size) for image, size in zip(self._images, (32, 4), strict=True))
        sectors = (32 << 20) // 512
        self._dm("create", self._pool, "--table", f"0 {sectors} thin-pool {meta} {data} 128 0 1 error_if_no_space")
        self._dm("message", self._pool, "0", "create_thin 0")
        run("dmsetup", "mknodes")
        self._dm("create", self._thin, "--table", f"0 {(512 << 20) // 512} thin /dev/mapper/{self._pool} 0")
        run("dmsetup", "mknodes")
        run("mkfs.ext4", "-q", "-O", "^has_journal", f"/dev/mapper/{self._thin}")
        self._loops = (data, meta)
        self.mount()

    def close(self) -> None:
        """Remove everything."""
        run("umount", str(self.place))
        for name in (self._thin, self._pool):
            self._dm("remove", name)
        for loop, image in zip(self._loops, self._images, strict=True):
            run("losetup", "-d", loop)
            image.unlink()
        self.place.rmdir()

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
