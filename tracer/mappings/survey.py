"""One look at the host: what the mapped files may still ask for, and what is left for them.

Needs no tracing. Files are opened to be asked about, never read or changed; those of network filesystems and FUSE only
when that is wanted, since the answer may never come.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import dataclass
from typing import Final

from tracer.host import files, smaps
from tracer.host.extents import Backing, backing
from tracer.host.mapped import MappedFile, Scan, scan
from tracer.host.mappings import covered
from tracer.host.space import UNLIMITED
from tracer.mappings.cut import Cut
from tracer.mappings.limits import Limits
from tracer.mappings.risk import Assessment, Demand, LimitedFilesystem, assess
from tracer.model.filesystems import Refusal, Rules, rules
from tracer.model.options import Filters
from tracer.text import counted

_MEMORY: Final = ("tmpfs", "devtmpfs")


@dataclass(frozen=True, slots=True)
class Survey:
    """The demands, the verdicts that follow, and what a reader has to know. ``monotonic_ns`` is CLOCK_MONOTONIC.

    ``unseen``: what should have been looked at, and could not be; ``skipped``: files that were left out on purpose.
    """

    monotonic_ns: int
    demands: tuple[Demand, ...]
    verdicts: tuple[Assessment, ...]
    notes: tuple[str, ...]
    unseen: tuple[str, ...] = ()
    skipped: int = 0
    cut: tuple[Cut, ...] = ()


def survey(filters: Filters = Filters(), *, remote: bool = False) -> Survey:  # noqa: B008  # frozen
    """Look at the mappings that are writable now, as far as ``filters`` let them through."""
    found = scan(filters, remote=remote)
    limits = Limits()
    demands: list[Demand] = []
    refused: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for file in found.files:
        known = rules(file.fstype)
        if known.refusal is Refusal.NEVER or not any(mapping.writable for mapping in file.mappings):
            continue
        if not (known.local or remote):
            skipped[f"on {file.fstype or 'an unknown filesystem'} were not asked: {_why_not(known)}"] += 1
            continue
        try:
            demand = _demand(file, found, limits, known)
        except FileNotFoundError:
            continue  # its processes have ended meanwhile
        except OSError as error:
            refused[f"on {file.fstype} that could not be asked: {error.strerror}"] += 1
            continue
        if demand is None:
            refused[f"on {file.fstype} that may not be opened"] += 1
        else:
            demands.append(demand)
    return Survey(
        monotonic_ns=time.monotonic_ns(),
        demands=tuple(demands),
        verdicts=assess(demands),
        notes=(*(f"{number} files {why}." for why, number in sorted(skipped.items())), *found.notes),
        unseen=(
            *found.unseen,
            *(f"{counted(number, 'file')} {why}." for why, number in sorted(refused.items())),
            *sorted(limits.unseen),
        ),
        skipped=skipped.total(),
        cut=tuple(_cut(file, found) for file in sorted(found.cut, key=lambda file: (-file.beyond, file.path))),
    )


def _cut(file: MappedFile, found: Scan) -> Cut:
    who = tuple(found.processes[pid].label for pid in file.pids if pid in found.processes)
    place = LimitedFilesystem(file.fstype, file.mountpoint, file.dev, rules(file.fstype).handler)
    return Cut(file.path, file.deleted, file.inode, file.size or 0, file.beyond, who, place)


def _why_not(known: Rules) -> str:
    if known.refusal is Refusal.UNKNOWN:
        return "nothing is known of it"
    late = "; a write that finds no space there is lost silently" if known.refusal is Refusal.WRITEBACK else ""
    return f"its server or daemon decides, and may hang (--remote asks all the same){late}"


def _demand(file: MappedFile, found: Scan, limits: Limits, known: Rules) -> Demand | None:
    fd = files.open_quietly(file.mappings)
    if fd is None:
        return None
    try:
        pids = sorted({mapping.pid for mapping in file.mappings if mapping.writable})
        writers = [found.processes[pid] for pid in pids if pid in found.processes]
        place = LimitedFilesystem(file.fstype, file.mountpoint, file.dev, known.handler)
        status = os.fstat(fd)
        ranges = covered(mapping for mapping in file.mappings if mapping.writable)
        block = os.fstatvfs(fd).f_bsize if file.fstype == "hugetlbfs" else limits.space(fd, file).block
        if file.fstype == "hugetlbfs":
            backed = Backing(holes=_lacking(ranges, status, block))
            unreserved = any(page.unreserved for page in _pages(file))
            met = limits.of_huge_pages(fd, block, place, writers, unreserved=unreserved)
        else:
            backed = backing(fd, ranges, status.st_size, block)
            met = limits.of(fd, file, place, writers)
        new = backed.holes + backed.shared
        if file.fstype in _MEMORY:
            # Preallocated pages look like holes there, but count as blocks.
            new = min(new, _lacking(ranges, status, block))
        elif known.refusal is Refusal.WRITEBACK:
            # Most of these don't tell their holes.
            new = max(new, _lacking(ranges, status, block))
        return Demand(
            path=file.path,
            deleted=file.deleted,
            inode=file.inode,
            size=status.st_size,
            who=tuple(writer.label for writer in writers),
            place=place,
            new=new,
            rewrites=backed.unwritten + backed.encoded + backed.written if known.rewrites else 0,
            limits=tuple(limit for limit in met if limit.free < UNLIMITED),
            given=backed.unwritten,
            enter=file.enter,
            here=file.here,
            block=block,
        )
    finally:
        os.close(fd)


def _lacking(ranges: list[tuple[int, int]], status: os.stat_result, block: int) -> int:
    """Bytes of ``ranges`` that have no block, at most: what the whole file lacks."""
    size = -(-status.st_size // block) * block
    mapped = sum(max(0, min(end, size) - begin) for begin, end in ranges)
    return max(0, min(mapped, size - status.st_blocks * 512))


def _pages(file: MappedFile) -> list[smaps.Residency]:
    return list(smaps.of_all([(m.pid, m.start) for m in file.mappings if m.writable]).values())
