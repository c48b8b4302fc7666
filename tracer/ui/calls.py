"""The table of calls: one row per filesystem, handler and path (and what ``--by`` asks for)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from tracer.model.calls import FaultPath, Initiator, Outcome, Series
from tracer.model.histogram import Histogram
from tracer.model.snapshot import Snapshot
from tracer.text import count_text, duration, keep_ends, keep_tail, printable
from tracer.ui import labels
from tracer.ui.table import Column, Table, number


@dataclass(frozen=True, slots=True)
class CallRow:
    """Calls of one filesystem, handler and path. Of ``series``, outcome and initiator say nothing.

    ``rate`` is in calls/s; ``p50`` and ``p99`` are in ns; ``failed`` counts the refused calls.
    """

    series: Series
    histogram: Histogram
    calls: int
    rate: float
    p50: float
    p99: float
    failed: int


#: What rows can be sorted by; the first is the default.
SORTS: Final[dict[str, Callable[[CallRow], float]]] = {
    "calls": lambda row: row.calls,
    "p50": lambda row: row.p50,
    "p99": lambda row: row.p99,
    "max": lambda row: row.histogram.max_ns,
    "failed": lambda row: row.failed,
}


#: Cells for a path's whole name, of which half says nothing.
_PATH: Final = max(len(path) for path in FaultPath)


def all_outcomes(series: Series) -> Series:
    """Return the group that a series belongs to when outcome and initiator are left out."""
    return replace(series, outcome=Outcome.WRITABLE, initiator=Initiator.UNKNOWN, generation=0)


def call_rows(snapshot: Snapshot, sort: str = "calls", reverse: bool = False) -> list[CallRow]:
    """Return the snapshot's rows, those with the largest ``sort`` first (``reverse``: last)."""
    failed: dict[Series, int] = {}
    for series, histogram in snapshot.calls.items():
        if series.outcome.failed:
            group = all_outcomes(series)
            failed[group] = failed.get(group, 0) + histogram.count
    seconds = snapshot.elapsed_ns / 1e9
    rows = [
        CallRow(
            series=series,
            histogram=histogram,
            calls=(calls := histogram.count),
            rate=calls / seconds if seconds > 0 else 0.0,
            p50=histogram.quantile(0.5),
            p99=histogram.quantile(0.99),
            failed=failed.get(series, 0),
        )
        for series, histogram in sorted(snapshot.grouped(all_outcomes).items())
    ]
    return sorted(rows, key=SORTS[sort], reverse=not reverse)


def told(row: CallRow) -> str:
    """Return the text of a row but for its numbers, for who looks for a part of it."""
    of = row.series
    return " ".join((labels.mount(of), labels.fstype(of), labels.handler(of), of.path.value, printable(of.who)))


def calls_table(
    rows: Sequence[CallRow], *, who: str = "", sort: str = "", totals: bool = False, limit: int | None = None
) -> Table[CallRow]:
    """Return the table of ``rows``; ``who`` is the title of the ``--by`` column, "" for none.

    ``sort`` marks the column sorted by. ``totals`` adds the number of calls to their rate.
    """
    return Table(_columns(who, sort, totals), rows, limit)


def _columns(who: str, sort: str, totals: bool) -> list[Column[CallRow]]:
    """Return the columns in their order.

    First the device gives way, since the mount point tells it, then the handler, which the type of the filesystem
    tells; a part of its name would only take width from what is read first.
    """

    def title(name: str, sorted_by: str | None = None) -> str:
        return f"{name}*" if (sorted_by or name.lower()) == sort else name

    columns: list[Column[CallRow]] = [
        Column("DEVICE", lambda row: labels.device(row.series), 6, drop=9),
        Column("MOUNT", lambda row: labels.mount(row.series), 8, shorten=keep_tail),
        Column("FSTYPE", lambda row: labels.fstype(row.series), 6, drop=6),
        Column("HANDLER", lambda row: labels.handler(row.series), 24, drop=8),
        Column("PATH", lambda row: row.series.path.value, _PATH, drop=3),
    ]
    if who:
        columns.append(Column(who, lambda row: printable(row.series.who) or "-", 10, shorten=keep_ends))
    if totals:
        columns.append(number(title("CALLS"), lambda row: count_text(row.calls), drop=4))
    columns += [
        number(title("CALLS/S", "calls"), lambda row: count_text(row.rate), 8),
        number(title("P50"), lambda row: duration(row.p50), drop=5),
        number(title("P99"), lambda row: duration(row.p99), drop=1),
        number(title("MAX"), lambda row: duration(row.histogram.max_ns), drop=7),
        number(
            title("FAILED"),
            lambda row: count_text(row.failed),
            7,
            style=lambda row: "bold red" if row.failed else "",
        ),
    ]
    return columns
