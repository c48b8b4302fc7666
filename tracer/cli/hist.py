"""``mkwrite hist``: latency histograms."""

from __future__ import annotations

from typing import Any

import click

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
"""


@click.command(epilog=EXAMPLES)
@click.option("-i", "--interval", type=INTERVAL, help="Print each interval (default: once, at the end).")
@duration_option
@click.option("--by-outcome", is_flag=True, help="A histogram for each outcome.")
@click.option("--fine", is_flag=True, help="Always four buckets to an octave, however wide the range.")
@by_option
@json_option
@tracing_options
def hist(
    interval: int | None, duration: int | None, by_outcome: bool, fine: bool, as_json: bool, **tracing: Any
) -> None:
    """Print latency histograms of page_mkwrite.

    One for each filesystem, handler and path, with count, mean, percentiles and maximum.
    """
    from rich.console import Group

    from tracer.cli.output import Output, print_json
    from tracer.cli.run import Stop, announce, follow, intervals, opened, until
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

    with opened(session_options(**tracing), calls=True) as session, Stop() as stop:
        if interval is None:
            announce(session)
            for _ in follow(session, stop, until(duration)):
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
