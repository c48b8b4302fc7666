"""Who has a file mapped for writing that is known by its device and inode number only."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final, NamedTuple

from tracer.host import processes
from tracer.host.mappings import Mapping, MappingReader
from tracer.model.failures import Failure
from tracer.model.host_state import Mapper

#: So long all processes are not looked at again: files that lose writes come in crowds.
_FRESH_S: Final = 1.0


class Found(NamedTuple):
    """The processes, by number, and how the file is called in their mappings; nobody and "" if none was found."""

    by: tuple[Mapper, ...]
    name: str


NOBODY: Final = Found((), "")


class Mappers:
    """Looks for files in the mappings of all processes."""

    def __init__(self) -> None:
        self._reader = MappingReader()
        self._read_s = -_FRESH_S
        self._mappings: dict[tuple[int, int], list[Mapping]] = {}

    def find(self, failure: Failure) -> Found:
        """Who has the failure's file mapped now, or had it within the last second. Raises nothing.

        Of an overlay, kernels from 6.8 on show other numbers there than the filesystem below has: nobody is found.
        """
        if time.monotonic() - self._read_s >= _FRESH_S:
            self._read()
        found = self._mappings.get((failure.dev, failure.inode), [])
        by = []
        for pid in sorted({mapping.pid for mapping in found}):
            with suppress(OSError, KeyError, ValueError, IndexError):
                if process := processes.read(pid):
                    by.append(Mapper(pid, process.comm, process.container))
        return Found(tuple(by), found[0].name if found else "")

    def _read(self) -> None:
        self._mappings = {}
        for pid in processes.pids():
            with suppress(OSError):
                for mapping in self._reader.read(pid):
                    self._mappings.setdefault((mapping.dev, mapping.inode), []).append(mapping)
        self._read_s = time.monotonic()
