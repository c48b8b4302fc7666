"""How ranges of a file are backed: FIEMAP where the filesystem has it, else SEEK_HOLE and SEEK_DATA.

Nothing is flushed or read: FIEMAP_FLAG_SYNC is not set, so that blocks which are promised but not placed yet (delayed
allocation) are told as such.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_FS_IOC_FIEMAP: Final = 0xC020660B
#: struct fiemap, and struct fiemap_extent: logical, length, flags (include/uapi/linux/fiemap.h).
_HEADER: Final = struct.Struct("=QQIIII")
_EXTENT: Final = struct.Struct("=QQQ16xI12x")
_AT_ONCE: Final = 512

_LAST: Final = 0x0001
_DELALLOC: Final = 0x0004
_ENCODED: Final = 0x0008
_INLINE: Final = 0x0200
_UNWRITTEN: Final = 0x0800
_SHARED: Final = 0x2000

Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Backing:
    """Bytes of some ranges of a file, each byte counted in one member.

    ``holes`` have nothing (data that live in the inode count as such: writing through a mapping moves them out);
    ``promised`` is reserved, and placed at writeback; ``unwritten`` is preallocated; ``shared`` belongs to a reflink or
    snapshot, too; ``encoded`` is compressed or encrypted; ``written`` is the rest.
    """

    holes: int = 0
    promised: int = 0
    unwritten: int = 0
    shared: int = 0
    encoded: int = 0
    written: int = 0


def backing(fd: int, ranges: Iterable[Range], size: int, block: int) -> Backing:
    """How ``ranges`` [begin, end) of a file of ``size`` bytes are backed, up to the end of its last block.

    Raises OSError when the file cannot be asked.
    """
    end_of_file = -(-size // block) * block
    counts = dict.fromkeys(Backing.__dataclass_fields__, 0)
    for begin, end in ranges:
        end = min(end, end_of_file)
        at = begin
        for start, stop, kind in _extents(fd, begin, end):
            start, stop = max(start, at), min(stop, end)
            if start < stop:
                counts["holes"] += start - at
                counts[kind] += stop - start
                at = stop
        counts["holes"] += max(0, end - at)
    return Backing(**counts)


def _extents(fd: int, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    if begin >= end:
        return
    try:
        yield from _fiemap(fd, begin, end)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTTY):
            raise
        yield from _seek(fd, begin, end)


def _fiemap(fd: int, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    buffer = array.array("B", bytes(_HEADER.size + _AT_ONCE * _EXTENT.size))
    while begin < end:
        _HEADER.pack_into(buffer, 0, begin, end - begin, 0, 0, _AT_ONCE, 0)
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, buffer)
        mapped = _HEADER.unpack_from(buffer)[3]
        flags = _LAST
        for index in range(mapped):
            logical, _, length, flags = _EXTENT.unpack_from(buffer, _HEADER.size + index * _EXTENT.size)
            begin = logical + length
            yield logical, begin, _kind(flags)
        if not mapped or flags & _LAST:
            return


def _kind(flags: int) -> str:
    if flags & _INLINE:
        return "holes"
    if flags & _DELALLOC:
        return "promised"
    if flags & _SHARED:
        return "shared"
    if flags & _UNWRITTEN:
        return "unwritten"
    return "encoded" if flags & _ENCODED else "written"


def _seek(fd: int, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    while begin < end:
        try:
            data = os.lseek(fd, begin, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # none behind
                return
            raise
        if data >= end:
            return
        begin = os.lseek(fd, data, os.SEEK_HOLE)
        yield data, begin, "written"
