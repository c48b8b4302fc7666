"""The counts of failures by filesystem, class and errno."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from tracer.model.asked import asked
from tracer.model.failures import FailureSeries
from tracer.model.snapshot import Snapshot
from tracer.text import keep_ends, keep_tail, printable
from tracer.ui import labels
from tracer.ui.table import Column, Table, number

_Row = tuple[FailureSeries, int]


def failure_counts(snapshot: Snapshot, who: str = "") -> Iterator[RenderableType]:
    """Yield a table of the failures that were counted, with an empty line after it; nothing where there were none.

    ``who`` is the title of the ``--by`` column, "" for none.
    """
    if not asked(snapshot.failures) or not snapshot.failures:
        return
    rows = sorted(snapshot.failures.items())
    columns: list[Column[_Row]] = [
        Column("MOUNT", lambda row: labels.mount(row[0]), 8, shorten=keep_tail),
        Column("FSTYPE", lambda row: labels.fstype(row[0]), 6, drop=1),
        Column("FAILURE", lambda row: row[0].kind.value, 10, style=lambda _: "bold red"),
        Column("ERRNO", lambda row: row[0].errno or "-", 6),
    ]
    if who:
        columns.append(Column(who, lambda row: printable(row[0].who) or "-", 10, shorten=keep_ends))
    columns.append(number("COUNT", lambda row: str(row[1]), max(5, *(len(str(count)) for _, count in rows))))
    yield Table(columns, rows)
    yield Text("`mkwrite sigbus` explains each.", style="dim")
    yield Text("")
