"""What to trace, resolved once: from the names that filters have to the keys that the programs compare."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tracer.host.cgroups import Cgroups
from tracer.host.filters import check, check_host_pids
from tracer.host.mounts import Mounts
from tracer.kernel.features import read
from tracer.kernel.functions import hidden
from tracer.kernel.symbols import Symbols
from tracer.model.options import Filters
from tracer.probes.abi import Want


@dataclass(frozen=True, slots=True)
class Wanted:
    """A value to filter by."""

    kind: Want
    low: int
    high: int = 0

    @property
    def key(self) -> bytes:
        """Struct want."""
        return struct.pack("<3Q", self.kind, self.low, self.high)


class Selection:
    """The filters of a session, which all exist."""

    def __init__(self, filters: Filters, mounts: Mounts, cgroups: Cgroups, symbols: Symbols) -> None:
        """Open it; raises UsageError for what does not exist, and for pids that would be another process's."""
        check(filters, mounts, cgroups, symbols.handlers().keys())
        check_host_pids(filters)
        self.filters = filters
        self._others = tuple(_wanted(filters, mounts, cgroups))
        self._symbols = symbols

    def wanted(self, by_address: bool = True) -> list[Wanted]:
        """All values; handlers only where they are told ``by_address``, which raises MkwriteError if that is hidden."""
        return [*self._others, *(map(self._handler, self.filters.handlers) if by_address else ())]

    def _handler(self, name: str) -> Wanted:
        # Where addresses are hidden they are 0, of which no call ever is.
        if not (address := self._symbols.handlers()[name].address):
            raise hidden(read()).error()
        return Wanted(Want.HANDLER, address)


def _wanted(filters: Filters, mounts: Mounts, cgroups: Cgroups) -> Iterator[Wanted]:
    for pid in filters.pids:
        yield Wanted(Want.PID, pid)
    for comm in filters.comms:
        yield Wanted(Want.COMM, *_as_numbers(comm))
    for path in filters.cgroups:
        yield Wanted(Want.CGROUP, cgroups.id_of(path))
    for name in filters.fs:
        # mountinfo shows a subtype behind a dot, which is not part of the type: "fuse.sshfs".
        yield Wanted(Want.FS, *_as_numbers(name.partition(".")[0]))
    for point in filters.mounts:
        if mount := mounts.at(point):
            yield Wanted(Want.DEV, mount.dev)


def _as_numbers(text: str) -> tuple[int, int]:
    """Return the 16 bytes of a comm or type name, as the programs compare them."""
    padded = text.encode("utf-8", "surrogateescape")[:15].ljust(16, b"\0")
    return int.from_bytes(padded[:8], "little"), int.from_bytes(padded[8:], "little")
