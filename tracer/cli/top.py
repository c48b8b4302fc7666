"""``mkwrite top``: the live table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tracer.cli.look_back import look_back, look_back_options
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
from tracer.cli.when import When

EXAMPLES = """\b
Examples:
  mkwrite top                          what goes on, second by second
  mkwrite top --fs ext4 --by process   who does it, on ext4
  mkwrite top --sort p99 --cumulative  the slowest since the start
  mkwrite top --once -i 10s            one table of ten seconds
  mkwrite top --at 03:12               the minute that was recorded then
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
@click.option("--at", type=When(first=True), metavar="WHEN", help="Show the minute that was recorded then.")
@look_back_options
@tracing_options
@click.pass_context
def top(
    context: click.Context,
    /,
    interval: int,
    duration: int | None,
    number: int | None,
    once: bool,
    sort: str,
    cumulative: bool,
    as_json: bool,
    at: int | None,
    since: int | None,
    until: int | None,
    record: Path | None,
    **tracing: Any,
) -> None:
    """Show calls of page_mkwrite live: rate, latency and failures.

    One row per filesystem, handler and path, a second table of wp faults, the calls that have lasted for a
    second, and the last failures. Keys: h shows all of them, q quits, / takes
    what rows must have in them. When the
    output is no terminal, each interval is printed, and so is that of -n 1.

    With --at, --since, --until or --from, shows what `mkwrite export --record DIR` kept, minute by minute; on a
    terminal, the arrow keys step by a minute, n and p go to the next failure and the one before, j asks for a time.
    """
    number = shown(number, once)
    if at is not None and (since is not None or until is not None):
        raise click.UsageError("--at is one moment, --since and --until are a time: leave one of them out.")
    live = ("interval", "duration", "backend", "max_series")
    if asked := look_back(context, *((since, until) if at is None else (at, at)), record, live):
        from tracer.cli.replay_top import top_of_record

        top_of_record(asked, at is not None, tracing, sort, cumulative, as_json, number)
        return
    from functools import partial

    from tracer.cli.live import LiveTop
    from tracer.cli.output import Output, print_json
    from tracer.cli.run import Stop, announce, intervals, opened
    from tracer.export.json.failures import failure_dict
    from tracer.export.json.records import snapshot_dict, stuck_dict, total_dict
    from tracer.ui.top import TopView

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
