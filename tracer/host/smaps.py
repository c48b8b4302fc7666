"""How much of a mapping is in memory: from /proc/PID/smaps, which walks page tables and so is asked only on demand."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

_HEADER: Final = re.compile(rb"^([0-9a-f]+)-[0-9a-f]+ ")
_FIELD: Final = re.compile(rb"^(Rss|Shared_Dirty|Private_Dirty|Shared_Hugetlb): +([0-9]+) kB$")
_FLAGS: Final = b"VmFlags:"
_NORESERVE: Final = b"nr"


@dataclass(frozen=True, slots=True)
class Residency:
    """One mapping: bytes in memory, bytes that are dirty in this page table, and whether it was made MAP_NORESERVE."""

    resident: int
    dirty: int
    unreserved: bool


def residency(pid: int, starts: Collection[int]) -> dict[int, Residency]:
    """Return the mappings of a process that begin at ``starts``, without those that are gone or not to be seen."""
    try:
        with open(f"/proc/{pid}/smaps", "rb") as stream:  # noqa: PTH123  # hot
            return parse(stream.read(), starts)
    except OSError:
        return {}


def parse(text: bytes, starts: Collection[int]) -> dict[int, Residency]:
    """Return the mappings that begin at ``starts`` in the text of a smaps file (``show_smap``, fs/proc/task_mmu.c)."""
    wanted = frozenset(starts)
    found: dict[int, Residency] = {}
    start = -1
    fields: dict[bytes, int] = {}
    for line in text.split(b"\n"):
        if header := _HEADER.match(line):
            start = int(header[1], 16)
            fields = {}
        elif start not in wanted:
            continue
        elif field := _FIELD.match(line):
            fields[field[1]] = int(field[2]) << 10
        elif line.startswith(_FLAGS):
            resident = fields.get(b"Rss", 0) + fields.get(b"Shared_Hugetlb", 0)
            dirty = fields.get(b"Shared_Dirty", 0) + fields.get(b"Private_Dirty", 0)
            found[start] = Residency(resident, dirty, _NORESERVE in line.split())
    return found


def of_all(wanted: Collection[tuple[int, int]]) -> dict[tuple[int, int], Residency]:
    """Return the same for mappings of many processes, named by (pid, start); each process is asked once."""
    starts: dict[int, list[int]] = {}
    for pid, start in wanted:
        starts.setdefault(pid, []).append(start)
    return {(pid, at): what for pid, several in starts.items() for at, what in residency(pid, several).items()}
