"""The record's files as the writer keeps them: an open segment with its room, closed ones, and an end to their number.

Room is taken from the disk before it is needed, and nothing is mapped: a full disk takes what is written nonetheless,
and a store to a file of the record would die of the SIGBUS that the record is to explain.
"""

from __future__ import annotations

import errno
import gzip
import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from tracer.record.lines import LABELLED, VERSION, encode, end_of
from tracer.record.segments import SPARE, UNFINISHED, Directory, Segment

#: Bytes that the open segment takes from the disk when it is begun; a longer line makes it longer.
ROOM: Final = 1 << 20
#: Of a record's size, what the open segment, the next one and one that is being compressed take.
LEAST_SIZE: Final = 8 * ROOM
_DAY_S: Final = 86_400
_NO_FALLOCATE: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class Limits(NamedTuple):
    """The most that a record takes: ``size`` bytes in all, lines of the last ``age_s`` seconds."""

    size: int
    age_s: int


class Store:
    """A record that is written to. A frame that raised OSError was not written, and may be given again.

    ``first`` are the members of a segment's first line that say who writes it, and where.
    """

    def __init__(self, directory: Directory, limits: Limits, first: Mapping[str, object]) -> None:
        self._directory = directory
        self._limits = limits
        self._first = first
        self._segment: Segment | None = None
        self._fd = -1
        self._at = 0
        #: Whether the segment, or what is written of it from now on, still lacks its first line.
        self._headless = True
        #: Which number stands for which labels since that line.
        self._numbers: dict[str, int] = {}
        with suppress(OSError):
            os.unlink(UNFINISHED, dir_fd=directory.fd)

    def append(self, frame: Mapping[str, Any]) -> None:
        """Write a frame behind the last one."""
        if self._segment is None:
            self._resume()
        if self._old():
            with suppress(OSError):  # the one that there is will do
                self._begin()
        data, numbers = self._lines(frame)
        if self._segment is None or self._at + len(data) > ROOM:
            self._begin()
            data, numbers = self._lines(frame)
        self._write(data)
        self._headless = False
        self._numbers.update(numbers)

    def sync(self) -> None:
        """Have the disk keep what was written, whatever happens to this machine."""
        if self._segment is not None:
            os.fdatasync(self._fd)

    def size(self) -> int:
        """Bytes that the record takes on the disk."""
        return sum(self._sizes().values()) + self._spare_size()

    def close(self) -> None:
        """Leave the open segment as it is: the next writer goes on with it."""
        if self._segment is not None:
            os.close(self._fd)
            self._segment = None

    def _lines(self, frame: Mapping[str, Any]) -> tuple[bytes, dict[str, int]]:
        """Return a frame's lines, labels that this segment does not have yet before it; and those labels."""
        new: dict[str, int] = {}
        lines = [self._head()] if self._headless else []

        def number(kind: str, labels: Mapping[str, object]) -> int:
            key = kind + json.dumps(labels)
            known = self._numbers.get(key, new.get(key))
            if known is None:
                known = new[key] = len(self._numbers) + len(new)
                lines.append(encode({"kind": "series", "number": known, "of": kind, **labels}))
            return known

        short = dict(frame)
        for kind in LABELLED:
            if kind in frame:
                short[kind] = [[number(kind, labels), *values] for labels, *values in frame[kind]]
        if "tracer" in frame:
            short["tracer"] = number("tracer", frame["tracer"])
        return b"".join([*lines, encode(short)]), new

    def _write(self, data: bytes) -> None:
        at = self._at
        while data:
            written = os.pwrite(self._fd, data, at)
            at, data = at + written, data[written:]
        self._at = at

    def _head(self) -> bytes:
        moment = {"time_ns": time.time_ns(), "monotonic_ns": time.monotonic_ns()}
        return encode({"kind": "segment", "version": VERSION, **self._first, **moment})

    def _take(self, segment: Segment, fd: int, at: int) -> None:
        """Go on in a segment; nothing was said in it yet, as far as its reader is to know."""
        self._segment, self._fd, self._at = segment, fd, at
        self._headless, self._numbers = True, {}

    def _old(self) -> bool:
        return self._segment is not None and not 0 <= time.time() - self._segment.began_s < _DAY_S

    def _resume(self) -> None:
        """Go on in the segment that the last writer left open: its room is there even on a full disk."""
        found = self._directory.segments()
        left = found[-1] if found else None
        if left is None or left.closed or left.version != VERSION:
            return
        fd = self._directory.open(left.name, os.O_RDWR)
        try:
            with os.fdopen(os.dup(fd), "rb") as stream:
                data = stream.read()
            end = end_of(data)
            if len(data) < ROOM or end > ROOM - (ROOM >> 3):
                os.close(fd)  # it was closed, and is not compressed yet; or has little room
                return
            os.pwrite(fd, bytes(len(data.rstrip(b"\0")) - end), end)
        except BaseException:
            with suppress(OSError):
                os.close(fd)
            raise
        self._take(left, fd, end)

    def _begin(self) -> None:
        """Begin a segment, and close the one before it. Old ones go first, so that the limits hold at any time."""
        self._prune()
        found = self._directory.segments()
        segment = Segment(found[-1].number + 1 if found else 1, int(time.time()))
        fd = self._directory.open(self._spare(), os.O_WRONLY)
        try:
            self._rename(SPARE, segment.name)
        except BaseException:
            os.close(fd)
            raise
        if self._segment is not None:
            with suppress(OSError):  # compressing cuts it, too
                os.ftruncate(self._fd, self._at)
            os.close(self._fd)
        self._take(segment, fd, 0)
        with suppress(OSError):  # where there is no room now, what is closed stays as it is until there is
            self._compress()
        with suppress(OSError):
            self._spare()
        os.fsync(self._directory.fd)

    def _spare(self) -> str:
        """Have room on the disk for the next segment; the name of the file that holds it."""
        if self._spare_size() >= ROOM:
            return SPARE
        with suppress(FileNotFoundError):
            os.unlink(SPARE, dir_fd=self._directory.fd)
        fd = self._directory.open(SPARE, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.fchmod(fd, 0o640)
            try:
                os.posix_fallocate(fd, 0, ROOM)
            except OSError as error:
                if error.errno not in _NO_FALLOCATE:
                    raise
                os.ftruncate(fd, ROOM)
            os.fsync(fd)
        except BaseException:
            os.unlink(SPARE, dir_fd=self._directory.fd)
            raise
        finally:
            os.close(fd)
        return SPARE

    def _compress(self) -> None:
        """Compress what was closed: the segment takes its name only when it is whole."""
        for segment in self._directory.segments():
            if segment.closed or segment == self._segment:
                continue
            fd = self._directory.open(segment.name)
            with os.fdopen(fd, "rb") as stream:
                data = stream.read()
                status = os.fstat(fd)
            data = data[: end_of(data)]
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            with os.fdopen(self._directory.open(UNFINISHED, flags), "wb") as stream:
                os.fchmod(stream.fileno(), 0o640)
                stream.write(gzip.compress(data, mtime=0))
                stream.flush()
                os.utime(stream.fileno(), ns=(status.st_mtime_ns, status.st_mtime_ns))
                os.fsync(stream.fileno())
            closed = Segment(segment.number, segment.began_s, segment.version, closed=True)
            self._rename(UNFINISHED, closed.name)
            os.unlink(segment.name, dir_fd=self._directory.fd)

    def _prune(self) -> None:
        """Remove the oldest segments until a new one has room within the limits; never the open one."""
        sizes = self._sizes()
        total = sum(sizes.values()) + 3 * ROOM  # the new one, the spare, and what is being compressed
        for segment in self._directory.segments():
            if segment == self._segment:
                continue
            age_s = time.time() - os.stat(segment.name, dir_fd=self._directory.fd, follow_symlinks=False).st_mtime
            if total <= self._limits.size and age_s <= self._limits.age_s:
                continue
            os.unlink(segment.name, dir_fd=self._directory.fd)
            total -= sizes[segment]

    def _rename(self, name: str, to: str) -> None:
        os.rename(name, to, src_dir_fd=self._directory.fd, dst_dir_fd=self._directory.fd)

    def _sizes(self) -> dict[Segment, int]:
        return {segment: self._size(segment.name) for segment in self._directory.segments()}

    def _spare_size(self) -> int:
        try:
            return self._size(SPARE)
        except FileNotFoundError:
            return 0

    def _size(self, name: str) -> int:
        status = os.stat(name, dir_fd=self._directory.fd, follow_symlinks=False)
        return max(status.st_size, status.st_blocks * 512)
