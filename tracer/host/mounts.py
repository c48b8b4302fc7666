"""The mount table: which filesystem, mounted where, is behind a device number.

mountinfo shows the superblock's ``s_dev`` (``show_mountinfo`` in fs/proc_namespace.c), which is what the BPF
programs read too. It is one number for all subvolumes of a btrfs, unlike the ``st_dev`` of stat(2).
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from tracer.model.calls import Filesystem, device_name
from tracer.model.mounts import Mount, parse


def _mountinfo() -> Path:
    """Return the host's mounts rather than a container's, where its processes can be seen and looked at.

    In a container, the root is another than that of the first process, unless that is the container's own.
    """
    with suppress(OSError):
        if not Path("/").samefile("/proc/1/root"):
            return Path("/proc/1/mountinfo")
    return Path("/proc/self/mountinfo")


MOUNTINFO: Final = _mountinfo()


@dataclass(frozen=True, slots=True)
class Mounts:
    """All mounts that this process sees, in the kernel's order: a later one hides an earlier one there.

    ``skipped`` counts lines that could not be understood.
    """

    entries: tuple[Mount, ...] = ()
    skipped: int = 0

    @classmethod
    def read(cls, path: Path = MOUNTINFO) -> Mounts:
        """Return the mounts as they are now. Raises OSError when ``path`` cannot be read."""
        return cls.parse(path.read_bytes())

    @classmethod
    def parse(cls, text: bytes) -> Mounts:
        """Return the mounts in the text of a mountinfo file; never raises."""
        return cls(*parse(text))

    def __iter__(self) -> Iterator[Mount]:
        return iter(self.entries)

    def at(self, mountpoint: str) -> Mount | None:
        """Return the filesystem that is visible at exactly this mount point."""
        wanted = os.path.normpath(mountpoint)
        return next((mount for mount in reversed(self.entries) if mount.mountpoint == wanted), None)

    def best_mountpoint(self, dev: int) -> str:
        """Where a device is mounted, see ``preferred``; empty when it is mounted nowhere."""
        mount = preferred(mount for mount in self.entries if mount.dev == dev)
        return mount.mountpoint if mount else ""

    def of_bdi(self, name: str) -> str:
        """Where a filesystem of a backing device is mounted, by its name in /sys/class/bdi; "" where none is.

        The name is the device's number, with a suffix for some types (super_setup_bdi in fs/super.c), a disk's for its
        partitions.
        """
        number = name.partition("-")[0]
        found = preferred(m for m in self.entries if number in (device_name(m.dev), _disk(m.dev)))
        return found.mountpoint if found else ""


def _disk(dev: int) -> str:
    """Return the number of the disk that a partition is of; "" for what is none."""
    with suppress(OSError):
        return Path(f"/sys/dev/block/{device_name(dev)}/../dev").read_text().strip()
    return ""


def preferred(mounts: Iterable[Mount]) -> Mount | None:
    """Return the mount that stands for several: of a whole filesystem rather than a part, then the shortest path."""
    return min(mounts, key=lambda m: (m.root != "/", len(m.mountpoint), m.mountpoint), default=None)


class MountTable:
    """Filesystem -> its mount, kept up to date; safe to use from several threads.

    The table is read again only when the kernel says that the mounts changed, or for a filesystem that is new. A
    filesystem keeps its mount point for as long as it is mounted there, and after that until it is mounted elsewhere:
    what is derived from it (the labels of a counter) should not change under a reader. The next filesystem with its
    device number has nothing of that.
    """

    def __init__(self, path: Path = MOUNTINFO) -> None:
        """Open it; raises OSError when ``path`` cannot be read."""
        self._lock = threading.Lock()
        self._generations: Callable[[], Mapping[int, int]] = dict
        self._exact = True
        self._known: dict[Filesystem, Mount] = {}
        #: Not mounted where we see it, when that was last read.
        self._absent: set[Filesystem] = set()
        # Opened before the first reading, so that no change falls between the two.
        self._changes = MountChanges(path)
        self._refresh()

    def __enter__(self) -> MountTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching. Further look-ups answer from what is known."""
        with self._lock:
            self._changes.close()

    def follow(self, generations: Callable[[], Mapping[int, int]], exact: bool) -> None:
        """Tell filesystems apart by ``generations`` (by device number, those above 0 at least) from now on.

        ``exact``: each end of a filesystem is seen. Otherwise a generation begins when the next filesystem is met, and
        those that are in ``generations`` have been.
        """
        with self._lock:
            self._generations, self._exact = generations, exact
            self._known.clear()
            self._refresh()

    def find(self, filesystem: Filesystem) -> Mount | None:
        """Where it is mounted, or was; None if it never was where we see it."""
        with self._lock:
            if self._changes or (filesystem not in self._known and filesystem not in self._absent):
                self._refresh()
                if filesystem not in self._known:
                    self._absent.add(filesystem)
            return self._known.get(filesystem)

    def forget(self, is_over: Callable[[Filesystem], bool]) -> None:
        """Drop what is known of filesystems that have ended."""
        with self._lock:
            self._known = {one: mount for one, mount in self._known.items() if not is_over(one)}
            self._absent.clear()

    def _refresh(self) -> None:
        self._absent.clear()
        before, mounts, after = self._generations(), self._changes.read(), self._generations()
        places: dict[int, list[Mount]] = {}
        for mount in mounts:
            places.setdefault(mount.dev, []).append(mount)
        for dev, found in places.items():
            # A filesystem that is mounted has not ended; if one did meanwhile, the mount may be of either.
            if before.get(dev, 0) == after.get(dev, 0):
                self._note(Filesystem(dev, after.get(dev, 0)), found, self._exact or dev not in after)
        # Without an end that is seen, what was mounted and never met may be another by the time that it is.
        for filesystem in [one for one in self._known if one.dev not in places and not self._exact]:
            if filesystem.dev not in after:
                del self._known[filesystem]

    def _note(self, filesystem: Filesystem, mounts: Sequence[Mount], certain: bool) -> None:
        """``certain``: the mounts are of this filesystem, whatever was known of it."""
        known = self._known.get(filesystem)
        if known is None or (certain and _name(known) not in map(_name, mounts)):
            best = preferred(mounts)
            assert best is not None
            self._known[filesystem] = best


def _name(mount: Mount) -> tuple[str, str]:
    """Return what counters are labelled with."""
    return mount.fstype, mount.mountpoint


class MountChanges:
    """The mounts, and whether anything was mounted or unmounted since that was last asked.

    The file stays open: whether it may be read the kernel decides when it is opened.
    """

    def __init__(self, path: Path = MOUNTINFO) -> None:
        """Open it; raises OSError when ``path`` cannot be read."""
        self._watched = path.open("rb", buffering=0)
        self._poll = select.poll()
        self._poll.register(self._watched, select.POLLPRI)

    def close(self) -> None:
        """Stop watching: nothing changes any more."""
        if not self._watched.closed:
            self._poll.unregister(self._watched)
            self._watched.close()

    def __bool__(self) -> bool:
        return bool(self._poll.poll(0))

    def read(self) -> Mounts:
        """Return the mounts as they are now. Not to be called by two threads at once."""
        self._watched.seek(0)
        return Mounts.parse(self._watched.read())
