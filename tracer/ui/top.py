"""The whole screen of ``top``: status, calls, wp faults, stuck calls, the last failures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from tracer.latency.stuck import StuckCall
from tracer.model.failures import Failure
from tracer.model.snapshot import Snapshot
from tracer.text import count_text, duration, printable
from tracer.ui import labels
from tracer.ui.calls import call_rows, calls_table, told
from tracer.ui.status import status
from tracer.ui.stuck import stuck_table
from tracer.ui.trace import failures_table
from tracer.ui.tracepoints import TracepointsView
from tracer.ui.wp import wp_table

#: Failures that the pane shows.
LAST_FAILURES = 5
#: Stuck calls that the pane shows, the oldest.
_STUCK = 5


@dataclass(frozen=True, slots=True)
class TopView:
    """A renderable of one moment.

    ``counts`` is what the tables show; ``total`` is everything so far, from which losses are told: one that
    happened stays in sight. ``failures`` are the latest, oldest first; ``stuck`` calls the oldest first.
    ``who`` is the title of the ``--by`` column, "" for none. ``totals``: ``counts`` is everything so far.
    With ``full_screen`` the view keeps to the console's height: the table of calls gives way. ``hint`` is a
    last line, about keys. ``only``: of the calls, the rows that have this text in them. Of a time that was recorded,
    ``at`` says when its interval ended, and ``besides`` are lines on what happened.
    """

    counts: Snapshot
    total: Snapshot
    failures: Sequence[Failure] = ()
    stuck: Sequence[StuckCall] = ()
    sort: str = "calls"
    reverse: bool = False
    who: str = ""
    totals: bool = False
    full_screen: bool = False
    hint: str = ""
    only: str = ""
    at: str = ""
    besides: Sequence[Text] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        above: list[RenderableType] = [self._headline(), *status(self.total), Text("")]
        below: list[RenderableType] = [] if self.counts.tracepoints else [Text(""), wp_table(self.counts)]
        if self.stuck:
            below += [Text(""), Text("stuck", style="bold"), stuck_table(self.stuck, _STUCK)]
        if failures := self.failures[-LAST_FAILURES:]:
            below += [Text(""), Text("last failures", style="bold"), failures_table(failures)]
        if self.besides:
            below += [Text(""), *self.besides]
        if self.hint:
            below += [Text(""), Text(self.hint, style="dim", no_wrap=True, overflow="crop")]
        rows = [row for row in call_rows(self.counts, self.sort, self.reverse) if self.only in told(row)]
        limit = None
        if self.full_screen and options.height is not None:
            used = len(console.render_lines(Group(*above, *below), options.update(height=None)))
            limit = max(1, options.height - used - 1)
        table = calls_table(rows, who=self.who, sort=self.sort, totals=self.totals, limit=limit)
        yield from above
        if self.counts.tracepoints:
            yield TracepointsView(self.counts)
        else:
            nothing = f"no row has {printable(self.only)!r}" if self.only else labels.NO_CALLS
            yield table if rows else Text(nothing, style="dim")
        yield from below

    def _headline(self) -> Text:
        counts = self.counts
        seconds = counts.elapsed_ns / 1e9
        calls = sum(histogram.count for histogram in counts.calls.values())
        rate = count_text(calls / seconds if seconds > 0 else 0.0)
        span = "since start, " if self.totals else "last "
        now = self.at or f"{datetime.now():%H:%M:%S}"
        if counts.tracepoints:
            return Text.assemble((now, "bold"), f"  {span}{duration(counts.elapsed_ns)}")
        return Text.assemble(
            (now, "bold"),
            f"  {span}{duration(counts.elapsed_ns)}  {calls} calls, {rate}/s, {counts.in_flight} in flight",
        )
