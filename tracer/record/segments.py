"""The files of a record, and the directory that they are in: nothing that others may write to or replace is opened."""

from __future__ import annotations

import calendar
import errno
import fcntl
import gzip
import json
import os
import re
import stat
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from tracer.errors import MkwriteError, UsageError
from tracer.record.lines import VERSION

DEFAULT: Final = Path("/var/lib/mkwrite")
#: What a file may be while it is made, and room that is kept for the next segment.
UNFINISHED: Final = "mkwrite.unfinished"
SPARE: Final = "mkwrite.spare"
#: What a filesystem of its own has at its root.
_NOT_OURS: Final = "lost+found"
_NAME: Final = re.compile(r"mkwrite-(\d{1,4})-(\d{8})-(\d{8}T\d{6}Z)\.jsonl(\.gz)?", re.ASCII)
_TIME: Final = "%Y%m%dT%H%M%SZ"
#: What a gzip file begins with (RFC 1952), and the most that a segment's first line may have, in bytes.
_GZIP: Final = b"\x1f\x8b"
_FIRST_LINE: Final = 1 << 16
_READ_ONLY: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """A file of the record: ``number`` counts them in the order in which they were begun, at ``began_s`` of then."""

    number: int
    began_s: int
    version: int = VERSION
    closed: bool = False

    @property
    def name(self) -> str:
        """Its file's name."""
        began = time.strftime(_TIME, time.gmtime(self.began_s))
        return f"mkwrite-{self.version}-{self.number:08}-{began}.jsonl{'.gz' if self.closed else ''}"

    @classmethod
    def named(cls, name: str) -> Segment | None:
        """Return the segment of a file's name; None for another file."""
        if not (match := _NAME.fullmatch(name)):
            return None
        try:
            began = time.strptime(match[3], _TIME)
        except ValueError:
            return None
        return cls(int(match[2]), calendar.timegm(began), int(match[1]), bool(match[4]))


class Segments(Protocol):
    """What a record is read from: the files of a directory, or a file alone."""

    def segments(self) -> list[Segment]:
        """Return what there is, as it was written in order."""

    def open(self, name: str) -> int:
        """Open one of them by its name. Raises OSError."""

    def close(self) -> None:
        """Read no more."""


def segments_at(path: Path) -> Segments:
    """Open a record to read: a directory, or a file that ``mkwrite snapshot`` wrote. Raises MkwriteError."""
    return SegmentFile(path) if path.is_file() else Directory(path)


class SegmentFile:
    """A segment that is no longer written to, alone and under any name: what ``mkwrite snapshot`` writes."""

    def __init__(self, path: Path) -> None:
        """Look at it; its first line says which version it has. Raises MkwriteError for what is no segment."""
        self.path = path
        try:
            with path.open("rb") as stream:
                closed = stream.read(len(_GZIP)) == _GZIP
            with gzip.open(path) if closed else path.open("rb") as stream:
                first = json.loads(stream.readline(_FIRST_LINE))
            self._segment = Segment(0, 0, int(first["version"]), closed)
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
            why = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
            raise MkwriteError(
                f"{path} is no record{why}.", "Name a directory that `mkwrite export --record` keeps, or a snapshot."
            ) from None

    def segments(self) -> list[Segment]:
        """Return the one that it is."""
        return [self._segment]

    def open(self, name: str) -> int:
        """Open it, whatever it is called. Raises OSError."""
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Nothing is held open."""


class Directory:
    """An open directory of segments; names are looked up in it, never by a path."""

    def __init__(self, path: Path, writing: bool = False) -> None:
        """Open it; ``writing``: its owner and root alone may write to it, no link leads to it, and this process does.

        Raises MkwriteError.
        """
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if writing else 0))
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            if writing:
                self._check()
                fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise MkwriteError(
                f"Another process keeps its record in {path}.", "Give each exporter a directory of its own: --record."
            ) from None
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the directory to others."""
        os.close(self.fd)

    @property
    def owner(self) -> tuple[int, int]:
        """User and group that it belongs to."""
        there = os.fstat(self.fd)
        return there.st_uid, there.st_gid

    def segments(self) -> list[Segment]:
        """Return what there is, as it was written in order; an open one stands before what it was closed to."""
        found = (Segment.named(entry) for entry in self._names())
        return sorted(segment for segment in found if segment)

    def open(self, name: str, flags: int = _READ_ONLY) -> int:
        """Open a file of the record. Raises OSError for what is no regular file, or has another name elsewhere."""
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640, dir_fd=self.fd)
        there = os.fstat(fd)
        if not stat.S_ISREG(there.st_mode) or there.st_nlink != 1:
            os.close(fd)
            raise OSError(errno.EMLINK, "It is no regular file with one name", name)
        return fd

    def _names(self) -> list[str]:
        return os.listdir(self.fd)  # noqa: PTH208  # of a descriptor

    def _check(self) -> None:
        there = os.fstat(self.fd)
        if (os.geteuid() and there.st_uid not in (0, os.geteuid())) or there.st_mode & 0o022:
            raise UsageError(
                f"{self.path} can be written to by others.", f"Make it the exporter's own: chmod go-w {self.path}."
            )
        for name in self._names():
            status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
            ours = Segment.named(name) is not None or name in (UNFINISHED, SPARE)
            alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == there.st_uid
            if name != _NOT_OURS and not (ours and alone):
                raise UsageError(
                    f"{self.path} has {name!a}, which is no file of a record.",
                    "Give the record a directory of its own: --record.",
                )


def _unusable(path: Path, error: OSError) -> MkwriteError:
    if error.errno == errno.ENOENT:
        return UsageError(f"There is no directory {path}.", "Make it, or name another.")
    return MkwriteError(f"{path} cannot be used: {error.strerror}.", "Name a directory that may be read.")
