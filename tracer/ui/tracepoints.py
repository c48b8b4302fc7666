"""What tracepoints count, where no function can be hooked: SIGBUS, wp faults by mode, throttling by device."""

from __future__ import annotations

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.model.calls import Initiator
from tracer.model.snapshot import Snapshot, Throttled
from tracer.text import count_text, duration, keep_tail, printable, size_text
from tracer.ui.table import Column, Table, number

_Row = tuple[str, Throttled]


def _throttled(row: _Row) -> str:
    """Return the mount point with the device's name, or that alone."""
    return printable(f"{row[1].mountpoint} ({row[0]})" if row[1].mountpoint else row[0])


class TracepointsView:
    """A renderable of a snapshot that has ``tracepoints``; ``exact`` prints counts in full."""

    def __init__(self, snapshot: Snapshot, *, exact: bool = False) -> None:
        self._snapshot = snapshot
        self._exact = exact

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found = self._snapshot.tracepoints
        if found is None:
            return
        user, kernel = (found.wp_faults.get(mode, 0) for mode in (Initiator.USER, Initiator.KERNEL))
        yield Text(
            f"{found.sigbus} SIGBUS, {self._number(user)} wp faults of programs, {self._number(kernel)} of the kernel "
            f"for them, in {duration(self._snapshot.elapsed_ns)}"
        )
        if rows := sorted(found.throttled.items()):
            yield Text("")
            yield Table(self._columns(), rows)

    def _columns(self) -> list[Column[_Row]]:
        return [
            Column("THROTTLED", _throttled, 9, shorten=keep_tail),
            number("PAUSES", lambda row: self._number(row[1].pauses), 8),
            number("PAUSED", lambda row: duration(row[1].pause_ns), 8),
            number("DIRTIED", lambda row: size_text(row[1].dirtied), 9),
        ]

    def _number(self, count: int) -> str:
        return str(count) if self._exact else count_text(count)
