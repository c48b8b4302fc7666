"""Events as lines: one for each failure or slow call."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from tracer.model import CallEvent
from tracer.text import duration, keep_ends, offset_text, printable
from tracer.ui import labels
from tracer.ui.table import UNLIMITED, Column, Layout, Table, fit, number


def event_columns() -> list[Column[CallEvent]]:
    """The columns of an event; in 80 cells there is room for who, how long, what came of it, and where."""
    return [
        Column("TIME", _time, 12, 12, drop=2),
        number("PID", lambda event: str(event.pid), 7),
        Column("COMM", lambda event: printable(event.comm), 8, 15, drop=1),
        Column("FSTYPE", lambda event: labels.fstype(event), 6, 8, drop=5),
        Column("MOUNT", lambda event: labels.mount(event), 8, 16, drop=7),
        Column("PATH", lambda event: event.path.value, 13, 13, drop=6),
        Column("HANDLER", lambda event: labels.handler(event), 24, 24, drop=8),
        number("LATENCY", lambda event: duration(event.latency_ns), 7),
        Column("OUTCOME", lambda event: event.outcome.value, 8, 8, style=_outcome_style),
        number("OFFSET", lambda event: offset_text(event.offset), 10, drop=3),
        Column("FILE", event_file, 16, shorten=keep_ends),
    ]


def event_file(event: CallEvent) -> str:
    """The event's file, or its inode number where the name is not known."""
    name = printable(event.file) if event.file else f"inode {event.inode}" if event.inode else "-"
    return f"{name} (deleted)" if event.deleted else name


def _time(event: CallEvent) -> str:
    moment = datetime.fromtimestamp(event.time_ns // 1_000_000_000).astimezone()
    return f"{moment:%H:%M:%S}.{event.time_ns // 1_000_000 % 1000:03d}"


def _outcome_style(event: CallEvent) -> str:
    return "bold red" if event.outcome.failed else ""


class TraceLines:
    """Events as lines of ``width`` cells; None: as wide as they are, nothing dropped or shortened."""

    def __init__(self, width: int | None) -> None:
        self._layout: Layout[CallEvent] = fit(event_columns(), UNLIMITED if width is None else width)
        self._width = width

    def header(self) -> Text:
        """The line of titles."""
        return self._cut(self._layout.header())

    def line(self, event: CallEvent) -> Text:
        """The line of one event."""
        return self._cut(self._layout.row(event))

    def _cut(self, text: Text) -> Text:
        if self._width is not None:
            text.truncate(self._width, overflow="crop")
        text.end = "\n"
        return text


def failures_table(events: Sequence[CallEvent]) -> Table[CallEvent]:
    """The failures ``events`` as a table, in the order given."""
    return Table(event_columns(), events)
