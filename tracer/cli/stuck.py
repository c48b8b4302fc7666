"""``mkwrite stuck``: the calls that wait right now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tracer.cli.look_back import look_back, look_back_options
from tracer.cli.options import (
    INTERVAL,
    Duration,
    call_filters,
    call_options,
    duration_option,
    json_option,
    number_option,
    once_option,
    shown,
)

EXAMPLES = """\b
Examples:
  mkwrite stuck                     every second, what is stuck for a second
  mkwrite stuck --once              look once, and end
  mkwrite stuck -t 30s -i 10s       only what is stuck for long
  mkwrite stuck --mount /srv        only what is stuck on one filesystem
  mkwrite stuck --once --json | jq .stuck
  mkwrite stuck --since 03:00       what the exporter recorded since then
"""


@click.command(epilog=EXAMPLES)
@click.option(
    "-t", "--threshold", type=Duration(), default="1s", show_default=True, help="Show calls that last at least so long."
)
@click.option("-i", "--interval", type=INTERVAL, default="1s", show_default=True, help="Time between looks.")
@duration_option
@number_option
@once_option
@json_option
@look_back_options
@call_options
@click.pass_context
def stuck(
    context: click.Context,
    /,
    threshold: int,
    interval: int,
    duration: int | None,
    number: int | None,
    once: bool,
    as_json: bool,
    since: int | None,
    until: int | None,
    record: Path | None,
    **filtering: Any,
) -> None:
    """Show calls of page_mkwrite that have not returned for long.

    With age, victim, file, what it waits for and where in the kernel, the oldest first. Calls that began before the
    hooks were there are found by their stacks: their age is at least the one shown, and their file is not known.
    With -n, the first look is after the threshold, and each is told of. The exit code is 28 where not all could be
    looked at.

    With --since, --until or --from, shows what `mkwrite export --record DIR` kept.
    """
    left = shown(number, once)
    if asked := look_back(context, since, until, record, ("interval", "duration")):
        from tracer.cli.replay_events import stuck_of_record

        context.exit(stuck_of_record(asked, filtering, threshold, as_json, left))
    import time
    from contextlib import ExitStack

    from rich.text import Text

    from tracer.cli.output import Output, check_reader, print_json
    from tracer.cli.run import Stop, announce, opened
    from tracer.cli.run import until as moment_after
    from tracer.errors import Exit, MkwriteError
    from tracer.export.json.records import stuck_dict, text
    from tracer.host.stacks import readable
    from tracer.latency.chosen import Chosen
    from tracer.latency.stuck import StuckCalls
    from tracer.model.options import Options
    from tracer.ui.stuck import StuckView

    chosen = Chosen(call_filters(**filtering))
    out = Output()
    calls = StuckCalls()
    calls.look(None, threshold)
    first = time.monotonic_ns()
    end = moment_after(duration)
    told: tuple[str, ...] = ()
    with ExitStack() as stack:
        session = None
        try:
            # Without failures, which it does not show: every second counts until it looks.
            session = stack.enter_context(opened(Options(failures=False, waits=True), calls=True))
        except MkwriteError as error:
            Output(stderr=True).print(Text(f"Calls are found by their stacks alone: {error.problem}"))
            if not readable():
                left = 1  # there is nothing to look at
        stop = stack.enter_context(Stop())
        if session:
            announce(session)
        # What is older than our first look is known to be stuck when it has lasted for the threshold since.
        due = first + threshold if left else time.monotonic_ns()
        while True:
            while not stop.requested and time.monotonic_ns() < min(due, end):
                time.sleep(min(0.1, max(0.0, (min(due, end) - time.monotonic_ns()) / 1e9)))
                check_reader()
            found = chosen.of(calls.look(session, threshold))
            unseen = (*calls.unseen(hooked=session is not None), *chosen.unseen())
            if as_json:
                print_json({
                    "time_ns": time.time_ns(),
                    "stuck": [stuck_dict(one) for one in found],
                    "unseen": [text(sentence) for sentence in unseen],
                })  # fmt: skip
            elif found or left or unseen != told:
                out.print(StuckView(found, () if unseen == told else unseen))
                told = unseen
            left = left and left - 1
            if left == 0 or stop.requested or time.monotonic_ns() >= end:
                break
            due = time.monotonic_ns() + interval
    if unseen:
        context.exit(Exit.NOT_ALL_SEEN)
