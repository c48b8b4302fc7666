"""``mkwrite top``: the live table."""

from __future__ import annotations

from typing import Any

import click

from tracer.cli.options import (
    INTERVAL,
    Renaming,
    by_option,
    duration_option,
    json_option,
    number_option,
    once_option,
    session_options,
    shown,
    tracing_options,
)

EXAMPLES = """\b
Examples:
  mkwrite top                          what goes on, second by second
  mkwrite top --fs ext4 --by process   who does it, on ext4
  mkwrite top --sort p99 --cumulative  the slowest since the start
  mkwrite top --once -i 10s            one table of ten seconds
  mkwrite top --json | jq .            for programs
"""


@click.command(cls=Renaming, former={"--iterations": "--number"}, epilog=EXAMPLES)
@click.option("-i", "--interval", type=INTERVAL, default="1s", show_default=True, help="Time between updates.")
@duration_option
@number_option
@once_option
@click.option(
    "--sort",
    type=click.Choice(["calls", "p50", "p99", "max", "failed"]),
    default="calls",
    show_default=True,
    help="Column to sort by, largest first.",
)
@click.option("--cumulative", is_flag=True, help="Show everything since the start, not the last interval.")
@by_option
@json_option
@tracing_options
def top(
    interval: int,
    duration: int | None,
    number: int | None,
    once: bool,
    sort: str,
    cumulative: bool,
    as_json: bool,
    **tracing: Any,
) -> None:
    """Show calls of page_mkwrite live: rate, latency and failures.

    One row per filesystem, handler and path, a second table of wp faults, the calls that have lasted for a
    second, and the last failures. Keys: h shows all of them, q quits, / takes
    what rows must have in them. When the
    output is no terminal, each interval is printed, and so is that of -n 1.
    """
    from functools import partial

    from tracer.cli.live import LiveTop
    from tracer.cli.output import Output, print_json
    from tracer.cli.run import Stop, announce, intervals, opened
    from tracer.export.json.failures import failure_dict
    from tracer.export.json.records import snapshot_dict, stuck_dict, total_dict
    from tracer.ui.top import TopView

    number = shown(number, once)
    out = Output()
    who = (tracing["by"] or "").upper()
    with opened(session_options(**tracing, waits=True)) as session, Stop() as stop:
        before = session.snapshot()
        announce(session)
        ticks = partial(intervals, session, before, stop, interval, duration, number)
        if out.is_terminal and number != 1 and not as_json:
            LiveTop(stop, sort, cumulative, who).run(out, ticks)
            final = session.finish()
            out.print(TopView(final, final, sort=sort, who=who, totals=True))
            return
        for tick in ticks():
            counts = tick.total if cumulative else tick.counts
            if as_json:
                failures = [failure_dict(failure) for failure in tick.failures]
                stuck = [stuck_dict(one) for one in tick.stuck]
                more = {"failures": failures, "failures_omitted": tick.omitted, "stuck": stuck}
                print_json({**snapshot_dict(counts), **more, "total": total_dict(tick.total)})
            else:
                out.print(TopView(counts, tick.total, tick.failures, tick.stuck, sort, who=who, totals=cumulative))
                out.print()
