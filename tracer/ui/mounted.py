"""Mounted filesystems as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.mappings.mounted import MountedFilesystem
from tracer.model.filesystems import Refusal
from tracer.text import keep_ends, printable
from tracer.ui.remarks import remarks
from tracer.ui.table import Column, Table

_WHEN: Final = {
    Refusal.FAULT: "SIGBUS",
    Refusal.WRITEBACK: "writeback",
    Refusal.MMAP: "mmap",
    Refusal.MAPPING: "no mapping",
    Refusal.NEVER: "never",
    Refusal.UNKNOWN: "unknown",
}
_LEGEND: Final = (
    "ASKS: a write to a mapped page is told to the filesystem. REFUSES: where a write meets a full disk: at the write "
    "(SIGBUS), in mmap(2), or nowhere: it is accepted, and lost when it is written back, which only msync and fsync "
    "tell (writeback; on a thin pool or a loop device that holds for any filesystem); 'no mapping': none can be shared "
    "and writable. ERRNO: whether mkwrite sigbus tells the exact one."
)


class MountedView:
    """A renderable: a line for each filesystem, what the columns mean, and what was not seen."""

    def __init__(self, rows: Sequence[MountedFilesystem], unseen: Sequence[str] = ()) -> None:
        self.rows = rows
        self.unseen = unseen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns: list[Column[MountedFilesystem]] = [
            Column("MOUNT", lambda row: printable(row.mount.mountpoint), 12, shorten=keep_ends),
            Column("FSTYPE", lambda row: printable(row.mount.fstype), 6),
            Column("ASKS", _asks, 4),
            Column("REFUSES", lambda row: _WHEN[row.refusal], 10),
            Column("ERRNO", _errno, 5),
            Column("HANDLER", _handler, 12, drop=1),
        ]
        if any(row.peer for row in self.rows):
            columns.append(Column("PEER", lambda row: printable(row.peer.label) if row.peer else "-", 12, drop=2))
        yield Table(columns, self.rows)
        yield Text(_LEGEND, style="dim")
        yield from remarks((), self.unseen)


def _asks(row: MountedFilesystem) -> str:
    return "yes" if row.notifies else "no" if row.known else "?"


def _handler(row: MountedFilesystem) -> str:
    return ", ".join(row.handlers) or "-"


def _errno(row: MountedFilesystem) -> str:
    return "exact" if row.errno else "-"
