"""Disks that stop when they are told to, or are slow: device-mapper devices on files."""

from __future__ import annotations

import ctypes as ct
import os
import select
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.live.asleep import HELD_NS, Asleep
from tests.live.guest import ROOT, give_back, run

WAITER = shutil.copy(os.environ["WAITER"], "/tmp/waiter")
_SECTOR = 512
_MIB = 1 << 20
_SYNC_FILE_RANGE_WAIT_BEFORE, _SYNC_FILE_RANGE_WRITE = 1, 2
# There is no udev to wait for.
_DMSETUP = ("env", "DM_DISABLE_UDEV=1", "dmsetup")


class Device:
    """A block device that can be stopped. With ``delay_ms`` it is slow, too: each write takes so long.

    ``make`` is the command, if any, that makes a filesystem on a device. As a context manager it goes at the end, and
    the memory that its image takes, as soon as nobody uses it any more.
    """

    def __init__(self, name: str, mib: int, delay_ms: int = 0, make: tuple[str, ...] = ()) -> None:
        self.name = name
        self.path = Path("/dev/mapper", name)
        ROOT.mkdir(parents=True, exist_ok=True)
        self._image = ROOT / f"{name}.img"
        with self._image.open("wb") as stream:
            stream.truncate(mib * _MIB)
        run("modprobe", "-a", "loop", "dm-mod", "dm-delay")
        self._loop = loop = run("losetup", "--find", "--show", str(self._image)).strip()
        if make:
            run(*make, loop)  # before it is slow
            give_back(self._image)
        target = f"delay {loop} 0 0 {loop} 0 {delay_ms}" if delay_ms else f"linear {loop} 0"
        run(*_DMSETUP, "create", name, "--table", f"0 {mib * _MIB // _SECTOR} {target}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        run(*_DMSETUP, "remove", "--deferred", self.name)
        run("losetup", "--detach", self._loop)
        self._image.unlink()

    def keep_pages_stable(self, wanted: bool) -> None:
        """Whether pages must not change while they are written: what a disk with checksums asks for."""
        number = os.minor(self.path.stat().st_rdev)
        Path(f"/sys/block/dm-{number}/queue/stable_writes").write_text(str(int(wanted)))

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Nothing that is written arrives."""
        run(*_DMSETUP, "suspend", "--nolockfs", "--noflush", self.name)
        try:
            yield
        finally:
            run(*_DMSETUP, "resume", self.name)


class Disk(Device):
    """A mounted filesystem on a disk that can be stopped; its pages must not change while they are written back.

    With ``delay_ms`` it is slow instead, and pages may change. ``make`` and ``options`` are for mkfs and mount.
    """

    def __init__(
        self, fstype: str, mib: int, delay_ms: int = 0, name: str = "", make: tuple[str, ...] = (), options: str = "rw"
    ) -> None:
        name = name or f"{'slow' if delay_ms else 'waits'}-{fstype}"
        super().__init__(name, mib, delay_ms, (f"mkfs.{fstype}", "-q", *make))
        self.place = ROOT / name
        self.place.mkdir()
        run("modprobe", fstype)
        self.keep_pages_stable(not delay_ms)
        run("mount", "-i", "-t", fstype, "-o", options, str(self.path), str(self.place))

    def __exit__(self, *_: object) -> None:
        # Whoever is left on it after a test that failed is no reason for the next one to fail.
        run("umount", "--lazy", str(self.place))
        self.place.rmdir()
        super().__exit__()


class Waiter:
    """A process that stores to pages when it is told to, and measures how long that takes.

    ``command`` makes its command line another, such as one in a cgroup. With ``locked`` its memory stays where it is.
    A file that is long enough is taken as it is. As a context manager it ends with its block, whether that fails
    or not.
    """

    def __init__(
        self,
        path: Path,
        pages: int,
        command: Callable[..., Sequence[str]] = lambda *line: line,
        *,
        locked: bool = False,
    ) -> None:
        line = command(WAITER, str(path), str(pages), *(("locked",) if locked else ()))
        self._process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.busy = self.ready = self.slept = 0
        assert self._line() == "mapped"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error:
            self._process.kill()
        self._process.communicate(timeout=600)
        assert error or self._process.returncode == 0

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def store(self, first: int, number: int = 1) -> None:
        """Let it store to so many pages."""
        self.slept = 0
        assert self._process.stdin is not None
        self._process.stdin.write(f"{first} {number}\n")
        self._process.stdin.flush()

    def blocks(self, ns: int = HELD_NS, *, at_a_stretch: bool = True) -> bool:
        """Watch the store until it is over, or has slept for ``ns``, which is ``slept`` then."""
        self.slept = Asleep(self.pid).for_ns(ns, over=self.stored, at_a_stretch=at_a_stretch)
        return bool(self.slept)

    def blocked(self, ns: int = HELD_NS) -> None:
        """The same, of a store that is kept from going on."""
        assert self.blocks(ns), "the store did not wait"

    def stored(self, seconds: float = 0) -> bool:
        """Whether it has stored, or does within that time."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def took(self) -> int:
        """How long the stores took, in ns; waits for them. Of that, on the CPU: ``busy``; ``ready`` for it: at most."""
        took, self.busy, self.ready = map(int, self._line().split())
        return took

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def write_back(path: Path, page: int) -> None:
    """Change a page of a file through write(2), and begin to write it back."""
    with path.open("r+b", buffering=0) as stream:
        write_out(stream.fileno(), page, change=True)


def write_out(descriptor: int, page: int | None = None, *, change: bool = False) -> None:
    """Begin to write a page of a file back, or all; ``change`` it through write(2) before."""
    if change:
        os.pwrite(descriptor, b"y", (page or 0) * 4096)
    _sync_range(descriptor, page, _SYNC_FILE_RANGE_WRITE)


def wait_out(descriptor: int, page: int) -> None:
    """Wait until a page is written back."""
    _sync_range(descriptor, page, _SYNC_FILE_RANGE_WAIT_BEFORE)


def _sync_range(descriptor: int, page: int | None, flags: int) -> None:
    first, length = (0, 0) if page is None else (page * 4096, 4096)
    libc = ct.CDLL(None, use_errno=True)
    done = libc.sync_file_range(descriptor, ct.c_int64(first), ct.c_int64(length), flags)
    assert done == 0, os.strerror(ct.get_errno())
