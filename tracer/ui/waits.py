"""What calls wait for, as tables with bars, and the longest of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.breakdown import CPU, Breakdown, Part, breakdowns
from tracer.model import CallEvent, Snapshot
from tracer.text import counted, duration, keep_ends, printable
from tracer.ui import labels
from tracer.ui.table import Column, Table, number
from tracer.ui.trace import event_file, waited_for

LONGEST: Final = 5
_BAR: Final = 20


class WaitsView:
    """A renderable: a table for each filesystem and handler of ``snapshot``, then the longest of ``events``."""

    def __init__(self, snapshot: Snapshot, events: Sequence[CallEvent]) -> None:
        self.snapshot = snapshot
        self.events = sorted(events, key=lambda event: -event.latency_ns)[:LONGEST]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = breakdowns(self.snapshot)
        for one in found:
            yield Text(f"{labels.mount(one)} {labels.fstype(one)} {labels.device(one)} {labels.handler(one)}", "bold")
            each = duration(one.ns / one.calls) if one.calls else "-"
            yield Text(f"{counted(one.calls, 'call')}, {duration(one.ns)} in all, {each} a call")
            yield Table(_columns(one, options.ascii_only), one.parts)
            yield Text("")
        if not found:
            yield Text("no calls")
        if self.events:
            yield Text("longest calls", style="bold")
            yield Table(_event_columns(), self.events)
            yield Text("")


def _columns(whole: Breakdown, ascii_only: bool) -> list[Column[Part]]:
    def share(part: Part) -> float:
        return part.ns / whole.ns if whole.ns else 0.0

    full = "#" if ascii_only else "█"
    return [
        Column("PART", lambda part: part.name, 9),
        number("TOTAL", lambda part: duration(part.ns), 6),
        number("PER CALL", lambda part: duration(part.ns / whole.calls) if whole.calls else "-", 8),
        number("SHARE", lambda part: f"{100 * share(part):.1f}%", 6),
        number("CALLS", lambda part: "-" if part.name == CPU else str(part.count), 7, drop=2),
        number("MAX", lambda part: "-" if part.name == CPU else duration(part.max_ns), 6, drop=1),
        Column("", lambda part: full * max(1, round(_BAR * share(part))) if part.ns else "", 8, _BAR, drop=3,
               style=lambda part: "green" if part.name == CPU else "yellow"),
    ]  # fmt: skip


def _event_columns() -> list[Column[CallEvent]]:
    return [
        number("LATENCY", lambda event: duration(event.latency_ns), 7),
        number("PID", lambda event: str(event.pid), 7),
        Column("COMM", lambda event: printable(event.comm), 8, 15, drop=1),
        Column("WAITED FOR", waited_for, 16),
        Column("FILE", event_file, 16, shorten=keep_ends),
    ]
