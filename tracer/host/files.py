"""Reaching a file through a process that maps it, whatever became of its name, and without waiting for anybody.

Only for files of filesystems that answer by themselves (``Rules.local``): even a stat(2) waits for a dead server.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from tracer.host.mappings import Mapping, link
from tracer.host.mounts import Mounts
from tracer.host.opener import OPENER

_DELETED: Final = " (deleted)"


def status(mappings: Iterable[Mapping]) -> os.stat_result | None:
    """stat(2) of the file that all of ``mappings`` map; None if it may not be seen.

    Raises FileNotFoundError when none of the mappings is there any more.
    """
    refused = False
    for mapping in mappings:
        try:
            return Path(link(mapping)).stat()
        except PermissionError:
            refused = True
        except OSError:
            continue
        found = _by_name(mapping, OPENER.look)
        if found is not None:
            try:
                return os.fstat(found)
            finally:
                os.close(found)
    if refused:
        return None
    raise FileNotFoundError


def open_quietly(mappings: Iterable[Mapping]) -> int | None:
    """Return a descriptor of the mapped file, for asking about it only; None if it may not be had.

    It is looked at before it is opened (O_PATH runs nothing of a driver or FIFO), and nothing is read through it.
    Raises FileNotFoundError when none of the mappings is there any more.
    """
    refused = False
    for mapping in mappings:
        try:
            handle = os.open(link(mapping), os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            refused |= isinstance(error, PermissionError)
        else:
            try:
                if stat.S_ISREG(os.fstat(handle).st_mode):
                    return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                refused = True
            finally:
                os.close(handle)
        found = _by_name(mapping, OPENER.file)
        if found is not None:
            return found
    if refused:
        return None
    raise FileNotFoundError


def _by_name(mapping: Mapping, find: Callable[[int, str, list[int], int], int | None]) -> int | None:
    """Return the way by name, for those who may not follow the kernel's link (it takes CAP_SYS_ADMIN)."""
    with suppress(OSError):
        root = os.open(f"/proc/{mapping.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            mounts = _mounts(mapping.pid, int(time.monotonic()))
            # An overlay has the files of its upper filesystem, which older kernels name, under their inode numbers.
            where = [mount.mount_id for mount in mounts if mount.dev == mapping.dev or mount.fstype == "overlay"]
            return find(root, mapping.name.removesuffix(_DELETED), where, mapping.inode)
        finally:
            os.close(root)
    return None


@lru_cache(maxsize=16)
def _mounts(pid: int, second: int) -> Mounts:
    """Return the mounts of a process, as they were in a second: one look at the host asks for many files of it."""
    return Mounts.read(Path(f"/proc/{pid}/mountinfo"))
