"""What calls wait for, as tables with bars, the longest of them, and where in the kernel they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.latency.breakdown import CPU, Breakdown, Part, breakdowns
from tracer.latency.stacks import Seen, Slow
from tracer.model.calls import CallEvent
from tracer.model.freezes import Freeze
from tracer.model.snapshot import Snapshot
from tracer.model.waits import Wait
from tracer.text import counted, duration, keep_ends, printable
from tracer.ui import labels
from tracer.ui.stuck import freeze_text, stack_lines
from tracer.ui.table import Column, Table, fit, lines, number
from tracer.ui.trace import event_file, waited_for

LONGEST: Final = 5
_BAR: Final = 20


class WaitsView:
    """A renderable: a table for each filesystem and handler of ``snapshot``, the longest of ``calls``, and stacks.

    ``seen`` begins with the stack seen for the longest time; ``freezes`` are by device, None where nobody looked.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        calls: Sequence[Slow],
        seen: Sequence[Seen] = (),
        freezes: Mapping[int, Freeze] | None = None,
    ) -> None:
        self.snapshot = snapshot
        self.freezes = freezes
        self.calls = sorted(calls, key=lambda call: -call.event.took_ns)[:LONGEST]
        self.seen = seen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = breakdowns(self.snapshot)
        for one in found:
            yield Text(f"{labels.mount(one)} {labels.fstype(one)} {labels.device(one)} {labels.handler(one)}", "bold")
            each = duration(one.ns / one.calls) if one.calls else "-"
            yield Text(f"{counted(one.calls, 'call')}, {duration(one.ns)} in all, {each} a call")
            yield Table(_columns(one, options.ascii_only), one.parts)
            if self.freezes is not None and any(part.name == Wait.FREEZE for part in one.parts):
                yield Text(f"last {freeze_text(self.freezes.get(one.dev))}")
            yield Text("")
        if not found:
            yield Text(labels.NO_CALLS)
        if self.calls:
            yield Text("longest calls", style="bold")
            layout = fit(_event_columns(), options.max_width, [call.event for call in self.calls])
            found_lines = [layout.header()]
            for call in self.calls:
                found_lines += [layout.row(call.event), *stack_lines(call.stack)]
            yield from lines(found_lines, options.max_width)
            yield Text("")
        if self.seen:
            yield from lines(self._stacks(), options.max_width)
            yield Text("")

    def _stacks(self) -> Iterator[Text]:
        whole = sum(one.ns for one in self.seen) or 1
        yield Text("where calls were", style="bold")
        for one in self.seen[:LONGEST]:
            where = one.where
            place = f"{labels.mount(where)} {labels.fstype(where)} {labels.handler(where)}"
            yield Text(f"{duration(one.ns)}  {100 * one.ns / whole:.1f}%  {where.reason}  {place}")
            yield from stack_lines(where.stack)
        if len(self.seen) > LONGEST:
            rest = sum(one.ns for one in self.seen[LONGEST:])
            yield Text(f"{duration(rest)}  {100 * rest / whole:.1f}%  {len(self.seen) - LONGEST} more", style="dim")


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
        number("LATENCY", lambda event: duration(event.took_ns), 7),
        number("PID", lambda event: str(event.pid), 7),
        Column("COMM", lambda event: printable(event.comm), 8, 15, drop=1),
        Column("WAITED FOR", waited_for, 16),
        Column("FILE", event_file, 16, shorten=keep_ends),
    ]
