"""Reaching a file through a process that maps it, whatever became of its name, and without waiting for anybody.

Only for files of filesystems that answer by themselves (``Rules.local``): even a stat(2) waits for a dead server.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from tracer.host.mappings import Mapping, link

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
        try:
            found = Path(_by_name(mapping)).stat()
        except OSError:
            continue
        if found.st_ino == mapping.inode:
            return found
    if refused:
        return None
    raise FileNotFoundError


def open_quietly(mappings: Iterable[Mapping]) -> int | None:
    """A descriptor of the mapped file, for asking about it only; None if it may not be had.

    It is looked at before it is opened (O_PATH runs nothing of a driver or FIFO), and nothing is read through it.
    Raises FileNotFoundError when none of the mappings is there any more.
    """
    refused = False
    for mapping in mappings:
        for path in (link(mapping), _by_name(mapping)):
            try:
                handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except OSError as error:
                refused |= isinstance(error, PermissionError)
                continue
            try:
                found = os.fstat(handle)
                if stat.S_ISREG(found.st_mode) and (path == link(mapping) or found.st_ino == mapping.inode):
                    return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                refused = True
            finally:
                os.close(handle)
    if refused:
        return None
    raise FileNotFoundError


def _by_name(mapping: Mapping) -> str:
    """The way by name, for those who may not follow the kernel's link (it takes CAP_SYS_ADMIN)."""
    return f"/proc/{mapping.pid}/root{mapping.name.removesuffix(_DELETED)}"
