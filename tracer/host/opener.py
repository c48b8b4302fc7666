"""Opens what others name: a path may lead over links, and into filesystems that never answer.

A process of its own follows the path, so that one that hangs there keeps nobody waiting; it resolves no symbolic links
and no links of /proc, stays below the root that it is given, and hands back nothing but what lies on an expected mount
under an expected inode number. Run as a program it is that process, which imports nothing of mkwrite.
"""

from __future__ import annotations

import contextlib
import ctypes as ct
import errno
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Collection
from typing import Any, Final

#: How long the process may take for a path.
_LIMIT_S: Final = 2.0
_MESSAGE: Final = 1 << 16

_OPENAT2: Final = 437  # on every architecture
#: include/uapi/linux/openat2.h; with RESOLVE_IN_ROOT, ".." and mount points are followed, and no further than the root.
_NO_MAGICLINKS: Final = 0x02
_NO_SYMLINKS: Final = 0x04
_IN_ROOT: Final = 0x10
_MOUNT_ID: Final = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)


class Opener:
    """Opens one path after the other; safe to use from several threads."""

    def __init__(self, limit_s: float = _LIMIT_S) -> None:
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._helper: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def directory(self, root: int, path: str, mounts: Collection[int]) -> tuple[int | None, int]:
        """Return a directory below the open directory ``root``, on one of ``mounts`` (their ids), and an errno.

        Where the filesystem lets it not be opened, the descriptor can be asked for the size only (O_PATH), and the
        errno tells how it was refused. The descriptor is None where there is none such, or no answer.
        """
        return self._ask(root, path, mounts=list(mounts))

    def file(self, root: int, path: str, mounts: Collection[int], inode: int) -> int | None:
        """Return the regular file with that inode number, likewise; None if it is not there, or may not be opened."""
        found, error = self._ask(root, path, mounts=list(mounts), inode=inode)
        if found is not None and error:
            os.close(found)
            return None
        return found

    def look(self, root: int, path: str, mounts: Collection[int], inode: int) -> int | None:
        """Return the same for asking about it only (O_PATH)."""
        return self._ask(root, path, mounts=list(mounts), inode=inode, opened=False)[0]

    def gone(self, root: int, path: str, mounts: Collection[int], inode: int) -> bool:
        """Whether the answer is that nothing, or another file, has that name."""
        found, error = self._ask(root, path, mounts=list(mounts), inode=inode, opened=False)
        if found is not None:
            os.close(found)
        return found is None and error in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)

    def mount_id(self, path: str) -> int | None:
        """Return the id of the mount that a path leads to from here, symbolic links included; None without answer."""
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            found = self._ask(root, path, links=True, opened=False)[0]
        finally:
            os.close(root)
        if found is None:
            return None
        try:
            return _mount_id(found)
        finally:
            os.close(found)

    def start(self) -> None:
        """Start the process, so that the first path does not wait for that."""
        with self._lock, contextlib.suppress(OSError):
            self._started()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, root: int, path: str, **more: Any) -> tuple[int | None, int]:
        try:
            text = json.dumps({"path": path, **more}).encode()
            with self._lock:
                try:
                    socket.send_fds(self._started(), [text], [root])
                    answer, descriptors, _, _ = socket.recv_fds(self._started(), 16, 1, socket.MSG_CMSG_CLOEXEC)
                except OSError:
                    self._end()  # it hangs, and may do so for ever
                    raise
                if not answer:
                    self._end()
                    return None, errno.EIO
        except (OSError, ValueError):
            return None, errno.ETIMEDOUT
        return (descriptors[0] if descriptors else None), int(answer)

    def _started(self) -> socket.socket:
        if self._channel is None or self._owner != os.getpid():  # after a fork, it answers the parent
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                command = [sys.executable, "-I", "-S", __file__]
                self._helper = subprocess.Popen(
                    command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env={}, cwd="/"
                )
            ours.settimeout(self._limit_s)
            self._channel, self._owner = ours, os.getpid()
        return self._channel

    def _end(self) -> None:
        if self._channel:
            self._channel.close()
        if self._helper:
            self._helper.kill()
            self._helper.poll()  # no wait: a process that hangs in the kernel does not end yet
        self._channel = self._helper = None


#: The one of this process.
OPENER: Final = Opener()


class _How(ct.Structure):
    """struct open_how."""

    _fields_ = (("flags", ct.c_uint64), ("mode", ct.c_uint64), ("resolve", ct.c_uint64))


def _open(
    root: int,
    path: str,
    mounts: list[int] | None = None,
    inode: int | None = None,
    opened: bool = True,
    links: bool = False,
) -> tuple[int, int]:
    """Return what ``Opener`` answers; raises OSError or ValueError."""
    handle = _resolve(root, path, _NO_MAGICLINKS | _IN_ROOT | (0 if links else _NO_SYMLINKS))
    try:
        if mounts is not None and _mount_id(handle) not in mounts:
            raise OSError(errno.EXDEV, "on another mount")
        kind = os.O_DIRECTORY
        if inode is not None:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_ino != inode:
                raise OSError(errno.ESTALE, "another file")
            kind = 0
        if not opened:
            return os.dup(handle), 0
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | kind
        try:
            return os.open(f"/proc/self/fd/{handle}", flags), 0
        except OSError as error:
            return os.dup(handle), error.errno or errno.EIO
    finally:
        os.close(handle)


def _mount_id(descriptor: int) -> int | None:
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as stream:  # noqa: PTH123
        found = _MOUNT_ID.search(stream.read())
    return int(found[1]) if found else None


def _resolve(root: int, path: str, resolve: int) -> int:
    libc = ct.CDLL(None, use_errno=True)
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, resolve)
    name = ct.c_char_p(os.fsencode(path))
    handle = libc.syscall(ct.c_long(_OPENAT2), ct.c_int(root), name, ct.byref(how), ct.c_size_t(ct.sizeof(how)))
    if handle < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return int(handle)


def main() -> None:
    """Answer requests on descriptor 0 until nobody can make any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: who asks decides
    channel = socket.socket(fileno=0)
    while True:
        text, roots, _, _ = socket.recv_fds(channel, _MESSAGE, 1, socket.MSG_CMSG_CLOEXEC)
        if not text:
            return
        found, error = None, 0
        try:
            found, error = _open(roots[0], **json.loads(text))
        except (OSError, ValueError, IndexError) as refused:
            error = getattr(refused, "errno", None) or errno.EINVAL
        socket.send_fds(channel, [str(error).encode()], [] if found is None else [found])
        for descriptor in (*roots, *([] if found is None else [found])):
            os.close(descriptor)


if __name__ == "__main__":
    main()
