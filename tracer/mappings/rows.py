"""Who maps what: the files of a scan as rows, one for each process and file, or one for each file. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tracer.host import mappings
from tracer.host.mapped import MappedFile, Scan
from tracer.host.smaps import Residency

#: (pid, start) of a mapping -> what of it is in memory.
Resident = Mapping[tuple[int, int], Residency]


@dataclass(frozen=True, slots=True)
class MappingRow:
    """A file as one process maps it, or as all do. Sizes in bytes, None where they were not asked or are not known.

    ``pids`` are the processes, ``who`` says so in words. ``beyond`` is
    mapped beyond the end of the file; ``fixed``: it cannot be written. ``mapped`` counts no byte of the file twice;
    ``resident`` and ``dirty`` add up page tables, so that a page counts once for each process that has it.
    """

    file: MappedFile
    pids: tuple[int, ...]
    who: str
    container: str
    mapped: int
    writable: bool
    resident: int | None
    dirty: int | None
    beyond: int = 0
    fixed: bool = False


def rows(scan: Scan, *, by_file: bool = False, resident: Resident | None = None) -> list[MappingRow]:
    """Return the rows, the largest mappings first."""
    made = []
    files = {(file.dev, file.inode, file.path): file for file in (*scan.files, *scan.cut)}
    for file in files.values():
        if by_file:
            made.append(_row(scan, file, file.mappings, resident))
            continue
        of_process: dict[int, list[mappings.Mapping]] = {}
        for mapping in file.mappings:
            of_process.setdefault(mapping.pid, []).append(mapping)
        made += (_row(scan, file, several, resident) for several in of_process.values())
    return sorted(made, key=lambda row: (-row.mapped, row.file.path, row.pids))


def _row(scan: Scan, file: MappedFile, several: Iterable[mappings.Mapping], resident: Resident | None) -> MappingRow:
    several = list(several)
    pids = tuple(sorted({mapping.pid for mapping in several}))
    known = [scan.processes[pid] for pid in pids if pid in scan.processes]
    containers = {process.container for process in known}
    pages = None if resident is None else [r for m in several if (r := resident.get((m.pid, m.start))) is not None]
    return MappingRow(
        file=file,
        pids=pids,
        who=f"{len(pids)} processes" if len(pids) > 1 else known[0].label if known else f"[{pids[0]}]",
        container=containers.pop() if len(containers) == 1 else "",
        mapped=sum(end - begin for begin, end in mappings.covered(several)),
        writable=any(mapping.writable for mapping in several),
        resident=None if pages is None else sum(page.resident for page in pages),
        dirty=None if pages is None else sum(page.dirty for page in pages),
        fixed=all(mapping.fixed for mapping in several),
        beyond=mappings.beyond_end(several, file.size) if file.beyond and file.size is not None else 0,
    )
