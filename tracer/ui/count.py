"""Exact counts: a line for each series, nothing merged or rounded."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.model.calls import Series
from tracer.model.histogram import Histogram
from tracer.model.snapshot import Snapshot
from tracer.text import duration, keep_ends, keep_tail, printable
from tracer.ui import labels
from tracer.ui.failures import failure_counts
from tracer.ui.status import status
from tracer.ui.table import Column, Table, number
from tracer.ui.tracepoints import TracepointsView
from tracer.ui.wp import wp_table

_Row = tuple[Series, Histogram]


class CountView:
    """A renderable: the calls of ``snapshot`` by full key, its failures, its wp faults, and what was lost.

    ``who`` is the title of the ``--by`` column, "" for none.
    """

    def __init__(self, snapshot: Snapshot, who: str = "") -> None:
        self.snapshot = snapshot
        self.who = who

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        snapshot = self.snapshot
        if snapshot.tracepoints:
            yield TracepointsView(snapshot, exact=True)
            yield Text("")
            yield from failure_counts(snapshot, self.who)
            yield from status(snapshot)
            return
        rows = sorted(snapshot.by_name().calls.items())
        yield Table(_columns(self.who, rows), rows)
        total = sum(histogram.count for _, histogram in rows)
        yield Text(f"{total} calls in {duration(snapshot.elapsed_ns)}, {snapshot.in_flight} in flight")
        yield Text("")
        yield from failure_counts(snapshot, self.who)
        yield wp_table(snapshot, exact=True)
        yield Text("")
        yield from status(snapshot)


def _columns(who: str, rows: list[_Row]) -> list[Column[_Row]]:
    digits = max((len(str(histogram.count)) for _, histogram in rows), default=0)
    columns: list[Column[_Row]] = [
        Column("DEVICE", lambda row: labels.device(row[0]), 6, drop=3),
        Column("MOUNT", lambda row: labels.mount(row[0]), 8, shorten=keep_tail),
        Column("FSTYPE", lambda row: labels.fstype(row[0]), 6, drop=2),
        # The first to go: a filesystem has one, mostly.
        Column("HANDLER", lambda row: labels.handler(row[0]), 24, drop=4),
        Column("PATH", lambda row: row[0].path.value, 13),
        Column("INITIATOR", lambda row: row[0].initiator.value, 9, drop=1),
        Column("OUTCOME", lambda row: row[0].outcome.value, 8, style=_outcome_style),
    ]
    if who:
        columns.append(Column(who, lambda row: printable(row[0].who) or "-", 10, shorten=keep_ends))
    columns.append(number("CALLS", lambda row: str(row[1].count), max(5, digits)))
    return columns


def _outcome_style(row: _Row) -> str:
    return "bold red" if row[0].outcome.failed else ""
