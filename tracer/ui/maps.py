"""Shared writable mappings as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.mappings.rows import MappingRow
from tracer.model.filesystems import rules
from tracer.text import counted, keep_ends, printable, size_text
from tracer.ui.remarks import remarks
from tracer.ui.table import Column, Table, number


class MapsView:
    """A renderable: a line for each row, how many there are, the notes, and what was not seen."""

    def __init__(
        self,
        rows: Sequence[MappingRow],
        notes: Sequence[str],
        unseen: Sequence[str] = (),
        *,
        with_residency: bool = False,
    ) -> None:
        self.rows = rows
        self.notes = notes
        self.unseen = unseen
        self.with_residency = with_residency

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Table(_columns(self.rows, self.with_residency), self.rows)
        files = {(row.file.dev, row.file.inode, row.file.path) for row in self.rows}
        pids = {pid for row in self.rows for pid in row.pids}
        yield Text(
            f"{counted(len(files), 'file')}, mapped by {counted(len(pids), 'process', 'processes')}", no_wrap=False
        )
        yield from remarks(self.notes, self.unseen)


def _columns(rows: Sequence[MappingRow], with_residency: bool) -> list[Column[MappingRow]]:
    columns: list[Column[MappingRow]] = [Column("PROCESS", lambda row: printable(row.who), 12, 24, shorten=keep_ends)]
    if any(row.container for row in rows):
        columns.append(Column("CONTAINER", lambda row: printable(row.container) or "-", 9, 20, drop=2))
    columns += [
        Column("FSTYPE", lambda row: printable(row.file.fstype) or "-", 6, drop=3),
        Column("HANDLER", lambda row: rules(row.file.fstype).handler or "-", 8, drop=5),
        Column("ACCESS", _access, 6),
        number("MAPPED", lambda row: size_text(row.mapped), 8),
        number("SIZE", lambda row: _size(row.file.size), 8, drop=4),
        number("BACKED", lambda row: _size(row.file.allocated), 8, drop=1),
    ]
    if any(row.beyond for row in rows):
        columns.append(
            number("BEYOND", lambda row: size_text(row.beyond) if row.beyond else "-", 8, style=_beyond_style)
        )
    if with_residency:
        columns.append(number("RESIDENT", lambda row: _size(row.resident), 8))
        columns.append(number("DIRTY", lambda row: _size(row.dirty), 8))
    columns.append(Column("FILE", _file, 24, shorten=keep_ends))
    return columns


def _access(row: MappingRow) -> str:
    """Return what may be written: now, after mprotect(2), or never through these mappings."""
    if row.fixed:
        return "read"
    return "write" if row.writable else "could"


def _beyond_style(row: MappingRow) -> str:
    return "bold red" if row.beyond else ""


def _size(size: int | None) -> str:
    return "-" if size is None else size_text(size)


def _file(row: MappingRow) -> str:
    return printable(row.file.path) + (" (deleted)" if row.file.deleted else "")
