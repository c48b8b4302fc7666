"""Events as lines: one for each failure or slow call."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from tracer.latency.breakdown import parts_of
from tracer.model.failures import Event, Failure, FailureSource
from tracer.text import duration, keep_ends, offset_text, printable
from tracer.ui import labels
from tracer.ui.table import UNLIMITED, Column, Layout, Table, fit, number


def event_columns(waits: bool = False) -> list[Column[Event]]:
    """Return the columns of an event; in 80 cells there is room for who, how long, what came of it and why, and where.

    ``waits``: and for what it waited for, in a wider one.
    """
    columns: list[Column[Event]] = [
        Column("TIME", lambda event: labels.time_of_day(event.time_ns), 12, 12, drop=2),
        number("PID", lambda event: str(event.pid) if event.pid else "-", 7),
        Column("COMM", lambda event: printable(event.comm) or "-", 8, 15, drop=1),
        Column("FSTYPE", lambda event: labels.fstype(event), 6, 8, drop=5),
        Column("MOUNT", lambda event: labels.mount(event), 8, 16, drop=7),
        Column("PATH", _path, 13, 13, drop=6),
        Column("HANDLER", lambda event: labels.handler(event), 24, 24, drop=9),
        number("LATENCY", lambda event: duration(_took(event)) if _took(event) else "-", 7),
        Column("OUTCOME", outcome, 10, 17, style=_outcome_style),
        Column("ERRNO", lambda event: errno(event) or "-", 6, 9),
        Column("FROM", lambda event: errno_from(event) or "-", 24, 31, drop=8),
        number("OFFSET", lambda event: "-" if _late(event) else offset_text(event.offset), 10, drop=3),
        Column("FILE", event_file, 16, shorten=keep_ends),
    ]
    if waits:
        columns.insert(-1, Column("WAITED FOR", waited_for, 16, 32, drop=4))
    return columns


def waited_for(event: Event) -> str:
    """Return the parts of a call's time that are worth a word, the largest first: ``journal 212ms, cpu 12us``."""
    if isinstance(event, Failure):
        return "-"
    parts = parts_of(event).items()
    return ", ".join(f"{name} {duration(ns)}" for name, ns in parts if ns and 100 * ns >= event.took_ns) or "-"


def _took(event: Event) -> int:
    return event.latency_ns if isinstance(event, Failure) else event.took_ns


def event_file(event: Event) -> str:
    """Return the event's file, or its inode number where the name is not known."""
    name = printable(event.file) if event.file else f"inode {event.inode}" if event.inode else "-"
    return f"{name} (deleted)" if event.deleted else name


def outcome(event: Event) -> str:
    """Return what came of the call, or the failure's class."""
    if isinstance(event, Failure):
        return event.verdict.kind.value
    return event.outcome.value


def errno(event: Event) -> str:
    """Return the failure's errno, "" where none is known."""
    return event.verdict.errno if isinstance(event, Failure) else ""


def errno_from(event: Event) -> str:
    """Return the function that returned the errno, or that it was inferred."""
    if not isinstance(event, Failure):
        return ""
    return event.errno_from or ("inferred" if errno(event) else "")


def _late(event: Event) -> bool:
    """Whether it is a loss at writeback, of which neither the page nor the fault is known."""
    return isinstance(event, Failure) and event.source is FailureSource.WRITEBACK


def _path(event: Event) -> str:
    """How the fault came; "-" for one that read, and for a signal or a loss at writeback: no fault belongs to it."""
    without = (FailureSource.SIGNAL, FailureSource.WRITEBACK)
    if isinstance(event, Failure) and (event.source in without or not event.write):
        return "-"
    return event.path.value


def _outcome_style(event: Event) -> str:
    return "bold red" if isinstance(event, Failure) or event.outcome.failed else ""


class TraceLines:
    """Events as lines of ``width`` cells; None: as wide as they are, nothing dropped or shortened.

    ``waits``: with a column for what each waited for.
    """

    def __init__(self, width: int | None, waits: bool = False) -> None:
        self._layout: Layout[Event] = fit(event_columns(waits), UNLIMITED if width is None else width)
        self._width = width

    def header(self) -> Text:
        """Return the line of titles."""
        return self._cut(self._layout.header())

    def line(self, event: Event) -> Text:
        """Return the line of one event."""
        return self._cut(self._layout.row(event))

    def _cut(self, text: Text) -> Text:
        if self._width is not None:
            text.truncate(self._width, overflow="crop")
        text.end = "\n"
        return text


def failures_table(failures: Sequence[Failure]) -> Table[Event]:
    """Failures as a table, in the order given."""
    return Table(event_columns(), failures)
