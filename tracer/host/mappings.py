"""Shared file mappings of a process, and which of them are writable, or could be made so by mprotect(2).

Kernels from 6.11 on answer a question (the PROCMAP_QUERY ioctl, ``do_procmap_query`` in fs/proc/task_mmu.c), a call for
each mapping that is wanted; on others the text of /proc/PID/maps is searched.
"""

from __future__ import annotations

import ctypes as ct
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from mmap import PAGESIZE
from typing import Final


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping. ``start`` and ``end`` are addresses, ``offset`` is the first mapped byte of the file.

    ``writable`` is now; where it is not, mprotect(2) could make it so, unless it is ``fixed``. ``dev`` and ``inode``
    are what the kernel shows
    in maps: the superblock's number (``major << 20 | minor``), and an inode number that is unique in a subvolume
    only on btrfs. ``name`` is the path as the kernel shows it, which may end with " (deleted)".
    """

    pid: int
    start: int
    end: int
    offset: int
    writable: bool
    dev: int
    inode: int
    name: str
    fixed: bool = False

    @property
    def length(self) -> int:
        """Bytes mapped."""
        return self.end - self.start


class _Query(ct.Structure):
    """struct procmap_query of include/uapi/linux/fs.h."""

    _fields_ = (
        ("size", ct.c_uint64),
        ("query_flags", ct.c_uint64),
        ("query_addr", ct.c_uint64),
        ("vma_start", ct.c_uint64),
        ("vma_end", ct.c_uint64),
        ("vma_flags", ct.c_uint64),
        ("vma_page_size", ct.c_uint64),
        ("vma_offset", ct.c_uint64),
        ("inode", ct.c_uint64),
        ("dev_major", ct.c_uint32),
        ("dev_minor", ct.c_uint32),
        ("vma_name_size", ct.c_uint32),
        ("build_id_size", ct.c_uint32),
        ("vma_name_addr", ct.c_uint64),
        ("build_id_addr", ct.c_uint64),
    )


_PROCMAP_QUERY: Final = 3 << 30 | ct.sizeof(_Query) << 16 | ord("f") << 8 | 17
_WRITABLE: Final = 0x02
_SHARED: Final = 0x08
_COVERING_OR_NEXT: Final = 0x10
_FILE_BACKED: Final = 0x20
_PATH_MAX: Final = 4096

#: ``start-end rwxs offset major:minor inode   name``, see proc(5). Shared ones only.
_LINE: Final = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) .(.).s ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) ([1-9][0-9]*) *(.*)$", re.MULTILINE
)


class MappingReader:
    """Reads the mappings of one process after another."""

    def __init__(self, *, query: bool = True) -> None:
        """``query``: ask with PROCMAP_QUERY as long as the kernel understands it."""
        self._query = _Query()
        self._name = ct.create_string_buffer(_PATH_MAX)
        self._can_query = query

    def read(self, pid: int) -> list[Mapping]:
        """Return the mappings of a process, by address; none if it is gone, or a kernel thread.

        Raises PermissionError for a process that this one may not look at.
        """
        try:
            fd = os.open(f"/proc/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            return []
        try:
            found = self._ask(fd, pid) if self._can_query else None
            return parse(_contents(fd), pid) if found is None else found
        except ProcessLookupError:
            return []
        finally:
            os.close(fd)

    def _ask(self, fd: int, pid: int) -> list[Mapping] | None:
        """Return the mappings by PROCMAP_QUERY; None if this kernel, or this name, needs the text."""
        query = self._query
        found: list[Mapping] = []
        address = 0
        while True:
            query.size = ct.sizeof(_Query)
            query.query_flags = _COVERING_OR_NEXT | _FILE_BACKED | _SHARED
            query.query_addr = address
            query.vma_name_size = _PATH_MAX
            query.vma_name_addr = ct.addressof(self._name)
            try:
                fcntl.ioctl(fd, _PROCMAP_QUERY, query)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return found
                if error.errno == errno.ESRCH:
                    return []
                if error.errno in (errno.ENOTTY, errno.EINVAL):
                    self._can_query = False
                return None
            address = query.vma_end
            writable = bool(query.vma_flags & _WRITABLE)
            found.append(
                Mapping(
                    pid,
                    query.vma_start,
                    query.vma_end,
                    query.vma_offset,
                    writable,
                    query.dev_major << 20 | query.dev_minor,
                    query.inode,
                    os.fsdecode(self._name.value),
                    not (writable or _may_write(pid, query.vma_start, query.vma_end)),
                )
            )


def parse(text: bytes, pid: int) -> list[Mapping]:
    """Return the mappings in the text of /proc/PID/maps."""
    found = []
    for match in _LINE.finditer(text):
        start, end = int(match[1], 16), int(match[2], 16)
        writable = match[3] == b"w"
        dev = int(match[5], 16) << 20 | int(match[6], 16)
        # The kernel escapes nothing but newlines there (show_map_vma in fs/proc/task_mmu.c).
        name = os.fsdecode(match[8].replace(rb"\012", b"\n"))
        fixed = not (writable or _may_write(pid, start, end))
        found.append(Mapping(pid, start, end, int(match[4], 16), writable, dev, int(match[7]), name, fixed))
    return found


def covered(mappings: Iterable[Mapping]) -> list[tuple[int, int]]:
    """Return the ranges of their file that mappings cover, [begin, end), in order and without overlap."""
    merged: list[tuple[int, int]] = []
    for begin, end in sorted((mapping.offset, mapping.offset + mapping.length) for mapping in mappings):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((begin, end))
    return merged


def beyond_end(mappings: Iterable[Mapping], size: int) -> int:
    """Bytes of whole pages that are mapped beyond the end of a file of ``size`` bytes (filemap_fault: max_idx)."""
    end = -(-size // PAGESIZE) * PAGESIZE
    return sum(max(0, stop - max(begin, end)) for begin, stop in covered(mappings))


def link(mapping: Mapping) -> str:
    """Return the link in /proc/PID/map_files that leads to the mapped file itself, whatever became of its name."""
    return f"/proc/{mapping.pid}/map_files/{mapping.start:x}-{mapping.end:x}"


def _may_write(pid: int, start: int, end: int) -> bool:
    """Whether mprotect(2) could make a shared mapping writable: the file was opened for writing.

    The link's mode shows how the file was opened (``proc_map_files_instantiate`` in fs/proc/base.c); mmap(2) takes
    VM_MAYWRITE from the same (``do_mmap`` in mm/mmap.c).
    """
    try:
        return bool(os.lstat(f"/proc/{pid}/map_files/{start:x}-{end:x}").st_mode & stat.S_IWUSR)
    except OSError:
        return False


def _contents(fd: int) -> bytes:
    pieces = []
    while piece := os.read(fd, 1 << 20):
        pieces.append(piece)
    return b"".join(pieces)
