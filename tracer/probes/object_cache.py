"""Compiled objects on disk, used only if nobody but root and this user can have written them.

A file's name is the key of what was compiled, and a digest of what it compiled to. Its content is the output of
``compile.py``, which names the files of the compiler: once one of them has changed, the object is compiled anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.probes.program import BpfObject

_WRITABLE_BY_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH
#: As many symbolic links as the kernel follows in a path (MAXSYMLINKS, include/linux/namei.h).
_MOST_LINKS: Final = 40


def directory() -> Path:
    """Where compiled objects are kept: systemd's CACHE_DIRECTORY, /var/cache for root, else the user's."""
    if given := os.environ.get("CACHE_DIRECTORY"):
        return Path(given)
    if os.geteuid() == 0:
        return Path("/var/cache/mkwrite")
    # "~" stays as it is for a user without a home: a relative path, which is not trusted.
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "mkwrite"  # noqa: PTH111


def digest(data: bytes) -> str:
    """Return a name for ``data``, which no other bytes have."""
    return hashlib.sha256(data).hexdigest()[:32]


def find(key: str) -> BpfObject | None:
    """Return the object kept under ``key``; None if there is none that can be trusted."""
    place = directory()
    with suppress(OSError):
        if _is_private(place):
            return next((found for kept in place.glob(f"{key}-*.json") if (found := _read(kept))), None)
    return None


def keep(key: str, output: bytes) -> None:
    """Keep the output of the compiler. Does nothing in a directory that others can change.

    Raises OSError when the directory or the file cannot be written.
    """
    place = directory()
    _make(place, 0o700)
    if not _is_private(place):
        return
    path = place / f"{key}-{digest(output)}.json"
    # Not the pid: containers that share the directory have the same ones, and a killed writer leaves its file.
    temporary = path.with_suffix(f".{os.urandom(8).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(output)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def leads_to(path: Path) -> os.stat_result | None:
    """Return the status of what ``path`` leads to; None if others than root and this user can make it lead elsewhere.

    Each directory on the way, symbolic links followed, must belong to one of the two, and be writable by its owner
    alone or sticky. Raises OSError when a part of the path does not exist or may not be looked at.
    """
    if not path.is_absolute():
        return None
    place, rest, links = Path("/"), [*reversed(path.parts[1:])], 0
    while True:
        status = place.lstat()
        if status.st_uid not in (0, os.geteuid()):
            return None
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                return None
            target = place.readlink()
            rest += reversed(target.parts[target.is_absolute() :])
            place = Path("/") if target.is_absolute() else place.parent
        elif not rest:
            return status
        elif status.st_mode & _WRITABLE_BY_OTHERS and not status.st_mode & stat.S_ISVTX:
            return None
        else:
            part = rest.pop()
            place = place.parent if part == ".." else place / part


def _is_private(path: Path) -> bool:
    """Return True if this user owns the file or directory, and only root and this user can change or replace it."""
    status = leads_to(path)
    return status is not None and status.st_uid == os.geteuid() and not status.st_mode & _WRITABLE_BY_OTHERS


def _make(place: Path, mode: int) -> None:
    """Make a directory and its parents, but none below a directory that others can replace."""
    if not place.exists() and place != place.parent:
        _make(place.parent, 0o755)
        if leads_to(place.parent):
            place.mkdir(mode, exist_ok=True)


def _read(path: Path) -> BpfObject | None:
    """Return a kept object; None unless this user's compiler wrote it, to the bit, and is still the same."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & _WRITABLE_BY_OTHERS:
            return None
        data = path.read_bytes()
        # A bit that flipped would be another program, which may load all the same, and count something else.
        if path.stem.endswith(f"-{digest(data)}"):
            output = json.loads(data)
            if _unchanged(output["compiler"]):
                return BpfObject.from_json(output)
    return None


def _unchanged(files: Iterable[tuple[str, int, int]]) -> bool:
    """Return False if a file of the compiler has another size or time now.

    One that is gone compiles nothing any more.
    """
    for name, size, mtime_ns in files:
        with suppress(FileNotFoundError):
            status = Path(name).stat()
            if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
                return False
    return True
