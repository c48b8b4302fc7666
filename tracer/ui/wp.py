"""The table of wp faults: runs of do_wp_page by outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tracer.model.calls import WpOutcome
from tracer.model.snapshot import Snapshot
from tracer.text import count_text
from tracer.ui.table import Column, Table, number


@dataclass(frozen=True, slots=True)
class WpRow:
    """One line of the table: its name, and a text for each outcome."""

    name: str
    cells: Mapping[WpOutcome, str]


def wp_table(snapshot: Snapshot, *, exact: bool = False) -> Table[WpRow]:
    """Two lines, the counts and the rates, one column per outcome; ``exact`` prints counts in full."""
    seconds = snapshot.elapsed_ns / 1e9
    counts = {outcome: snapshot.wp_faults.get(outcome, 0) for outcome in WpOutcome}
    rows = [
        WpRow("count", {outcome: str(n) if exact else count_text(n) for outcome, n in counts.items()}),
        WpRow("per second", {o: count_text(n / seconds if seconds > 0 else 0.0) for o, n in counts.items()}),
    ]
    columns: list[Column[WpRow]] = [Column("WP FAULTS", lambda row: row.name, 10)]
    for outcome in WpOutcome:
        width = max(len(outcome.value), *(len(row.cells[outcome]) for row in rows))
        drop = 2 if outcome is WpOutcome.UNCHANGED else 1
        columns.append(number(outcome.value.upper(), _cell(outcome), width, drop))
    return Table(columns, rows)


def _cell(outcome: WpOutcome) -> Callable[[WpRow], str]:
    return lambda row: row.cells[outcome]
