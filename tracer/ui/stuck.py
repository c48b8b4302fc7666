"""Calls that are stuck: a line for each, and its kernel stack."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.latency.stuck import StuckCall
from tracer.model.failures import Actor
from tracer.model.freezes import Freeze
from tracer.model.waits import Wait
from tracer.text import duration, keep_ends, offset_text, printable
from tracer.ui import labels
from tracer.ui.remarks import remarks
from tracer.ui.table import Column, Table, fit, lines, number


def stuck_columns(calls: Sequence[StuckCall]) -> list[Column[StuckCall]]:
    """Return the columns of stuck calls."""
    columns = [
        number("AGE", lambda one: f"{'>' if one.at_least else ''}{duration(one.call.age_ns)}", 7),
        number("PID", lambda one: str(one.call.pid), 7),
        number("TID", lambda one: str(one.call.tid), 7, drop=4),
        Column("COMM", lambda one: printable(one.call.comm), 8, 15),
        Column("WAITS FOR", lambda one: one.reason, 9, style=lambda _: "bold red"),
        Column("FSTYPE", lambda one: labels.fstype(one.call), 6, drop=2),
        Column("MOUNT", lambda one: labels.mount(one.call), 8, drop=1),
        Column("HANDLER", lambda one: labels.handler(one.call), 12, drop=5),
        number("OFFSET", _offset, 8, drop=3),
        Column("FILE", lambda one: printable(one.call.file) or "-", 16, shorten=keep_ends),
    ]
    if any(one.peer for one in calls):
        columns.append(Column("PEER", lambda one: printable(one.peer) or "-", 12, shorten=keep_ends))
    return columns


def _offset(one: StuckCall) -> str:
    return "-" if one.at_least else offset_text(one.call.offset)


def stuck_table(calls: Sequence[StuckCall], limit: int) -> Table[StuckCall]:
    """Stuck calls without their stacks."""
    return Table(stuck_columns(calls), calls, limit)


def stack_lines(stack: Sequence[str]) -> list[Text]:
    """Return a line for each function."""
    return [Text(f"    {printable(function)}", style="dim") for function in stack]


def freeze_lines(one: StuckCall) -> list[Text]:
    """Return a line that says who froze what the call waits for, or that nobody was seen to."""
    return [Text(f"    {freeze_text(one.freeze)}")] if one.reason == Wait.FREEZE else []


def freeze_text(freeze: Freeze | None) -> str:
    """Who froze a filesystem and who thawed it; None for a freeze that nobody saw."""
    if freeze is None or freeze.by is None:
        return "frozen before there were hooks to see by whom"
    said = f"frozen by {_actor(freeze.by)} at {labels.time_of_day(freeze.began_ns)}"
    if freeze.thawed_by:
        said += f", thawed by {_actor(freeze.thawed_by)} {duration(freeze.thawed_ns - freeze.began_ns)} later"
    return said


def _actor(actor: Actor) -> str:
    return f"{printable(actor.comm)}[{actor.pid}]"


class StuckView:
    """A renderable: what was not seen, then each of ``calls``, and below it the functions that its task is in."""

    def __init__(self, calls: Sequence[StuckCall], unseen: Sequence[str] = ()) -> None:
        self.calls = calls
        self.unseen = unseen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from remarks((), self.unseen)
        if not self.calls:
            yield Text("nothing that could be looked at is stuck" if self.unseen else "nothing is stuck")
            return
        layout = fit(stuck_columns(self.calls), options.max_width, self.calls)
        found = [layout.header()]
        for one in self.calls:
            found.append(layout.row(one))
            found += [*freeze_lines(one), *stack_lines(one.stack)]
        yield from lines(found, options.max_width)
