"""``mkwrite waits``: where the time of calls goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from tracer.cli.options import Duration, duration_option, json_option, session_options, tracing_options

if TYPE_CHECKING:
    from tracer.failure import Event

EXAMPLES = """\b
Examples:
  mkwrite waits                      until Ctrl-C, everything
  mkwrite waits -d 30s --fs ext4     half a minute, one type of filesystem
  mkwrite waits --pid 4242           what one process waits for
  mkwrite waits -d 1m --json | jq .  for programs
"""


@click.command(epilog=EXAMPLES)
@duration_option
@click.option(
    "--slower",
    type=Duration(),
    default="10ms",
    show_default=True,
    help="Of calls at least this slow, show the longest.",
)
@json_option
@tracing_options
def waits(duration: int | None, slower: int, as_json: bool, **tracing: Any) -> None:
    """Show what calls of page_mkwrite wait for.

    For each filesystem and handler, its time split into what was waited for and time on the CPU; then the
    longest calls, who made them, and what they waited for.
    """
    from heapq import nlargest

    from rich.console import Group

    from tracer.breakdown import breakdowns
    from tracer.cli.output import Output, print_json
    from tracer.cli.run import Stop, follow, opened, taken, until
    from tracer.export.jsonl import breakdown_dict, event_dict, snapshot_dict
    from tracer.model import CallEvent
    from tracer.ui.status import status
    from tracer.ui.waits import LONGEST, WaitsView

    longest: list[CallEvent] = []

    def keep(events: list[Event]) -> None:
        calls = [event for event in events if isinstance(event, CallEvent)]
        longest[:] = nlargest(LONGEST, longest + calls, key=lambda event: event.latency_ns)

    options = session_options(**tracing, slower_ns=slower, waits=True)
    with opened(options, calls=True) as session, Stop() as stop:
        for events in follow(session, stop, until(duration)):
            keep(events)
        final = session.finish()
        keep(taken(session))
    if as_json:
        print_json(
            {
                "elapsed_ns": final.elapsed_ns,
                "waits": [breakdown_dict(one) for one in breakdowns(final)],
                "longest": [event_dict(event) for event in longest],
                "lost": snapshot_dict(final)["lost"],
            }
        )
    else:
        Output().print(Group(WaitsView(final, longest), *status(final)))
