"""Where a failure's filesystem and file are, in whatever mount namespace, and how a command typed here reaches them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePath
from typing import Final

from tracer.host import processes
from tracer.host.mounts import MOUNTINFO, Mounts, preferred
from tracer.host.opener import OPENER
from tracer.model.failures import Disposition, Failure
from tracer.model.mounts import Mount

#: Filesystems whose mount is remembered.
_REMEMBERED: Final = 1024


@dataclass(frozen=True, slots=True)
class Found:
    """A mount, all of its mount namespace, and descriptors of the root that it is below and of that namespace.

    There are no descriptors, and no other mounts, if it is remembered only.

    They are held open: a victim that dies meanwhile takes /proc/PID/root with it, and the last process of a mount
    namespace its mounts.
    """

    mount: Mount
    held: tuple[int, ...] = ()
    mounts: Mounts = field(default_factory=Mounts)

    def close(self) -> None:
        """Let the descriptors go."""
        for descriptor in self.held:
            os.close(descriptor)


class MountFinder:
    """Finds mounts by device number, in the mount namespaces of others where ours does not have them.

    What was found once is remembered: a filesystem that only short-lived processes see is known from one to the next.
    """

    def __init__(self, has_ended: Callable[[Failure], bool]) -> None:
        """``has_ended``: whether the filesystem that a failure arose on has, and another may have its number."""
        self._has_ended = has_ended
        self._known: dict[tuple[int, int], tuple[Mount, int]] = {}

    def find(self, failure: Failure, others: Iterable[int]) -> Found | None:
        """Return the mount as the victim, we, one of ``others`` or any process has it; else what is remembered."""
        if not failure.dev:
            return None
        key = failure.dev, failure.generation
        remembered = self._known.get(key)
        pids = (*others, *([remembered[1]] if remembered else ()))
        # Ours may be the host's, seen from a container: MOUNTINFO.
        first = (Path(f"/proc/{failure.pid}"), MOUNTINFO.parent, *(Path(f"/proc/{pid}") for pid in pids))
        # Nobody has mounted what the kernel has for itself, such as memfds.
        rest = _one_of_each_namespace() if failure.file.count("/") > 1 and remembered is None else ()
        for process in chain(first, rest):
            found = _mounted(process, failure.dev)
            if found and (self._has_ended(failure) or not found.mount.kernel_type.startswith(failure.fstype)):
                found.close()
                return None  # the number is another's by now
            if found:
                self._remember(key, found.mount, process)
                return found
        return Found(remembered[0]) if remembered and not self._has_ended(failure) else None

    def _remember(self, key: tuple[int, int], mount: Mount, process: Path) -> None:
        self._known.pop(key, None)
        self._known[key] = mount, int(process.name) if process.name.isdecimal() else 0
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def entry(self, failure: Failure, others: Iterable[int]) -> tuple[str, str] | None:
        """How a command reaches the failure's filesystem from here: what to put before it, and the mount point then.

        None if nobody is known to have it who will stay: a victim of a fatal signal does not.
        """
        own = _visible(MOUNTINFO, failure.dev)
        if own:
            return "", own.mountpoint
        dies = failure.signal is not None and failure.signal.disposition is Disposition.FATAL
        remembered = self._known.get((failure.dev, failure.generation), (None, 0))[1]
        for pid in (*others, remembered, failure.pid):
            if pid and (pid != failure.pid or not dies):
                there = _visible(Path(f"/proc/{pid}/mountinfo"), failure.dev)
                if there:
                    return entering(pid), there.mountpoint
        return None


def entering(pid: int) -> str:
    """Return the prefix that makes a command see paths as a process does: mount namespace, and root if it differs."""
    with suppress(OSError):
        if str(Path(f"/proc/{pid}/root").readlink()) != "/":
            return f"nsenter -t {pid} -m -r "
    return f"nsenter -t {pid} -m "


def path_here(path: str, file: os.stat_result, dev: int, ours: Mounts, theirs: Mounts, pids: Iterable[int]) -> str:
    """Return a path that leads from here to the file at ``path`` in a mount namespace with the mounts ``theirs``.

    The same one, where our namespace has the same file there; else that of another mount of its filesystem; else
    one through the root of one of ``pids``. "" where none of these leads to it. ``dev`` is the filesystem's device
    number.
    """
    for candidate in (path, *_translated(path, dev, theirs, ours)):
        if _leads_to(MOUNTINFO.parent, candidate, file, dev, ours):
            return candidate
    for pid in pids:
        with suppress(OSError):
            process = Path(f"/proc/{pid}")
            if _leads_to(process, path, file, dev, Mounts.read(process / "mountinfo")):
                return f"{process}/root{path}"
    return ""


def _translated(path: str, dev: int, theirs: Mounts, ours: Mounts) -> Iterator[str]:
    """Where our mounts of a filesystem show what another namespace's mount of it shows at ``path``."""
    above = [mount for mount in theirs if mount.dev == dev and PurePath(path).is_relative_to(mount.mountpoint)]
    if above:
        mount = max(above, key=lambda one: len(one.mountpoint))
        inside = PurePath(mount.root) / PurePath(path).relative_to(mount.mountpoint)
        for own in sorted(ours, key=lambda one: len(one.mountpoint)):
            if own.dev == dev and inside.is_relative_to(own.root):
                yield str(PurePath(own.mountpoint) / inside.relative_to(own.root))


def _leads_to(process: Path, path: str, file: os.stat_result, dev: int, mounts: Mounts) -> bool:
    """Whether ``path``, as a process with these mounts has it, is that file or directory."""
    where = [mount.mount_id for mount in mounts if mount.dev == dev or mount.fstype == "overlay"]
    with suppress(OSError):
        root = os.open(process / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if stat.S_ISDIR(file.st_mode):
                found, _ = OPENER.directory(root, path, where)
            else:
                found = OPENER.look(root, path, where, file.st_ino)
        finally:
            os.close(root)
        if found is not None:
            try:
                return os.path.samestat(os.fstat(found), file)
            finally:
                os.close(found)
    return False


def _mounted(process: Path, dev: int) -> Found | None:
    with suppress(OSError):
        mounts = Mounts.read(process / "mountinfo")
        mount = preferred(mount for mount in mounts if mount.dev == dev)
        if mount:  # a process that has exited has neither any more
            namespace = os.open(process / "ns" / "mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                root = os.open(process / "root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                os.close(namespace)
                return None
            return Found(mount, (root, namespace), mounts)
    return None


def _visible(mountinfo: Path, dev: int) -> Mount | None:
    """Return the mount of a device that no other one hides."""
    with suppress(OSError):
        mounts = Mounts.read(mountinfo)
        return preferred(mount for mount in mounts if mount.dev == dev and mounts.at(mount.mountpoint) == mount)
    return None


def _one_of_each_namespace() -> Iterator[Path]:
    """Yield a process of each mount namespace of the host."""
    seen: set[str] = set()
    for pid in processes.pids():
        with suppress(OSError):
            namespace = str(Path(f"/proc/{pid}/ns/mnt").readlink())
            if namespace not in seen:
                seen.add(namespace)
                yield Path(f"/proc/{pid}")
