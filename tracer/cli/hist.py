"""``mkwrite hist``: latency histograms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tracer.cli.look_back import look_back, look_back_options
from tracer.cli.options import (
    INTERVAL,
    by_option,
    duration_option,
    json_option,
    session_options,
    tracing_options,
)

EXAMPLES = """\b
Examples:
  mkwrite hist                        until Ctrl-C
  mkwrite hist -d 30s --fs xfs        half a minute of xfs
  mkwrite hist -i 5s --by-outcome     every five seconds, failures apart
  mkwrite hist -d 1m --json > out     for programs
  mkwrite hist --since -2h            what the exporter recorded
"""


@click.command(epilog=EXAMPLES)
@click.option("-i", "--interval", type=INTERVAL, help="Print each interval (default: once, at the end).")
@duration_option
@click.option("--by-outcome", is_flag=True, help="A histogram for each outcome.")
@click.option("--fine", is_flag=True, help="Always four buckets to an octave, however wide the range.")
@by_option
@json_option
@look_back_options
@tracing_options
@click.pass_context
def hist(
    context: click.Context,
    /,
    interval: int | None,
    duration: int | None,
    by_outcome: bool,
    fine: bool,
    as_json: bool,
    since: int | None,
    until: int | None,
    record: Path | None,
    **tracing: Any,
) -> None:
    """Print latency histograms of page_mkwrite.

    One for each filesystem, handler and path, with count, mean, percentiles and maximum.

    With --since, --until or --from, of what `mkwrite export --record DIR` kept: the minutes that the time touches.
    """
    from rich.console import Group

    from tracer.cli.output import Output, print_json
    from tracer.cli.run import Stop, announce, follow, intervals, opened
    from tracer.cli.run import until as moment_after
    from tracer.export.json.records import snapshot_dict
    from tracer.model.snapshot import Snapshot
    from tracer.ui.failures import failure_counts
    from tracer.ui.hist import HistogramsView
    from tracer.ui.status import status

    out = Output()

    def show(counts: Snapshot, total: Snapshot) -> None:
        if as_json:
            print_json(snapshot_dict(counts))
        else:
            view = HistogramsView(counts, by_outcome=by_outcome, fine=fine)
            out.print(Group(view, *failure_counts(counts, (tracing["by"] or "").upper()), *status(total)))

    if asked := look_back(context, since, until, record, ("interval", "duration", "backend")):
        from tracer.cli.replay import counted

        found = counted(asked, tracing)
        show(found, found)
        return
    with opened(session_options(**tracing), calls=True) as session, Stop() as stop:
        if interval is None:
            announce(session)
            for _ in follow(session, stop, moment_after(duration)):
                pass
            final = session.finish()
            show(final, final)
            return
        before = session.snapshot()
        announce(session)
        for tick in intervals(session, before, stop, interval, duration):
            show(tick.counts, tick.total)
            if not as_json:
                out.print()
