"""``mkwrite trace``: one line per failure or slow call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracer.cli.look_back import look_back, look_back_options
from tracer.cli.options import (
    Duration,
    Renaming,
    all_writes_option,
    duration_option,
    json_option,
    number_option,
    once_option,
    session_options,
    shown,
    tracing_options,
)

if TYPE_CHECKING:
    from tracer.cli.output import Output
    from tracer.model.failures import Event
    from tracer.session import Session

#: How often losses are looked for.
LOSSES_S: Final = 5.0

EXAMPLES = """\b
Examples:
  mkwrite trace                        failures only
  mkwrite trace --slower 10ms          and calls of at least 10 ms
  mkwrite trace --slower 0 --pid 4242  every call of a process
  mkwrite trace -n 1 --json            wait for the next failure
  mkwrite trace --since 03:00          what the exporter recorded since then
"""


@click.command(cls=Renaming, former={"--lines": "--number"}, epilog=EXAMPLES)
@click.option("--slower", type=Duration(), help="Print calls at least this slow, too; 0: every call.")
@duration_option
@number_option
@once_option
@json_option
@all_writes_option
@look_back_options
@tracing_options
@click.pass_context
def trace(
    context: click.Context,
    /,
    slower: int | None,
    duration: int | None,
    number: int | None,
    once: bool,
    as_json: bool,
    all_writes: bool,
    since: int | None,
    until: int | None,
    record: Path | None,
    **tracing: Any,
) -> None:
    """Print a line for each failure, writes lost at writeback among them, and with --slower for each slow call.

    With --since, --until or --from, of what `mkwrite export --record DIR` kept.
    """
    lines = shown(number, once)
    if asked := look_back(context, since, until, record, ("duration", "all_writes", "backend", "max_series")):
        from tracer.cli.replay_events import trace_of_record

        trace_of_record(asked, tracing, slower, as_json, lines)
        return
    from itertools import chain, islice

    from tracer.cli.output import Output, print_json
    from tracer.cli.run import Stop, announce, follow, opened, taken
    from tracer.cli.run import until as moment_after
    from tracer.export.json.failures import record as json_of
    from tracer.model.failures import Class, Failure
    from tracer.model.hooks import Backend
    from tracer.ui.status import status
    from tracer.ui.trace import TraceLines

    if slower is not None and tracing["backend"] == Backend.TRACEPOINT:
        raise click.UsageError("The tracepoint backend sees no calls: leave --slower out, or choose another backend.")
    out, notices = Output(), Output(stderr=True)
    waits = slower is not None
    format_lines = TraceLines(out.width if out.is_terminal else None, waits)
    printed = told = 0

    def show(events: Iterable[Event]) -> None:
        nonlocal printed, told
        for event in islice(events, None if lines is None else lines - printed):
            if as_json:
                print_json(json_of(event))
            else:
                out.print_line(format_lines.line(event))
            printed += 1
            told += isinstance(event, Failure)

    options = session_options(**tracing, slower_ns=slower, waits=waits, all_writes=all_writes)
    with opened(options) as session, Stop() as stop:
        announce(session, _limits(slower is not None, session.backend is not Backend.TRACEPOINT))
        if not as_json:
            out.print_line(format_lines.header())
        show(chain.from_iterable(_with_losses(session, follow(session, stop, moment_after(duration)), notices)))
        final = session.finish()
        show(taken(session))
    notices.print(*status(final), sep="\n")
    apart = () if all_writes else (Class.WRITEBACK_UNMAPPED,)
    counted = sum(number for series, number in final.failures.items() if series.kind not in apart) - told
    if counted > 0 and printed != lines:
        notices.print(f"{counted} more failures were counted only: of what fails again and again, some are told.")


def _limits(slower: bool, calls: bool) -> str:
    """Return what is not shown, for those who see nothing."""
    if not calls:
        why = "this backend sees no calls" + (", so that --slower shows none" if slower else "")
        return f"Failures only: {why}."
    return "" if slower else "Failures only: --slower DURATION prints slow calls, too."


def _with_losses(session: Session, batches: Iterable[list[Event]], notices: Output) -> Iterator[list[Event]]:
    """Yield the batches; meanwhile new losses are told, every few seconds at most."""
    from tracer.cli.output import check_reader
    from tracer.ui.status import losses

    told = 0
    due = time.monotonic() + LOSSES_S
    for batch in batches:
        yield batch
        check_reader()
        if time.monotonic() >= due:
            due = time.monotonic() + LOSSES_S
            snapshot = session.snapshot()
            if snapshot.total_lost > told:
                told = snapshot.total_lost
                notices.print(losses(snapshot))
