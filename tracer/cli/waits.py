"""``mkwrite waits``: where the time of calls goes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.look_back import LookBack, look_back, look_back_options
from tracer.cli.options import Duration, duration_option, json_option, session_options, tracing_options

if TYPE_CHECKING:
    from tracer.latency.stacks import Seen, Slow
    from tracer.model.failures import Event
    from tracer.model.freezes import Freeze
    from tracer.model.snapshot import Snapshot

EXAMPLES = """\b
Examples:
  mkwrite waits                      until Ctrl-C, everything
  mkwrite waits -d 30s --fs ext4     half a minute, one type of filesystem
  mkwrite waits --pid 4242           what one process waits for
  mkwrite waits -d 1m --stacks       and where in the kernel it waits
  mkwrite waits -d 1m --folded | flamegraph.pl > waits.svg
  mkwrite waits -d 1m --json | jq .  for programs
  mkwrite waits --since -2h          what the exporter recorded
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
@click.option("--stacks", is_flag=True, help="Show the kernel stacks that calls were in, too; looks 50 times a second.")
@click.option("--folded", is_flag=True, help="Print those stacks, and nothing else, as flame graphs are made of.")
@json_option
@look_back_options
@tracing_options
@click.pass_context
def waits(
    context: click.Context,
    /,
    duration: int | None,
    slower: int,
    stacks: bool,
    folded: bool,
    as_json: bool,
    since: int | None,
    until: int | None,
    record: Path | None,
    **tracing: Any,
) -> None:
    """Show what calls of page_mkwrite wait for.

    For each filesystem and handler, its time split into what was waited for and time on the CPU; then the
    longest calls, who made them, and what they waited for.

    With --since, --until or --from, of what `mkwrite export --record DIR` kept: the minutes that the time touches.
    """
    if asked := look_back(context, since, until, record, ("duration", "stacks", "folded", "backend")):
        _look_back(asked, as_json, slower, tracing)
        return
    from heapq import nlargest

    from rich.console import Group

    from tracer.cli.output import Output
    from tracer.cli.run import Stop, announce, follow, opened, taken
    from tracer.cli.run import until as moment_after
    from tracer.errors import Exit, MkwriteError, UsageError
    from tracer.export.json.folded import folded_lines
    from tracer.host.stacks import readable
    from tracer.latency.stacks import EVERY_S, StackSampler
    from tracer.model.calls import CallEvent
    from tracer.model.freezes import by_device
    from tracer.ui.status import status
    from tracer.ui.waits import LONGEST

    if folded and as_json:
        raise UsageError("--folded and --json are two forms of output.", "Choose one; --stacks --json has the stacks.")
    stacks = stacks or folded
    if stacks and not readable():
        raise MkwriteError(
            "Kernel stacks cannot be read: that takes CAP_SYS_ADMIN and CONFIG_STACKTRACE.",
            ("Add CAP_SYS_ADMIN" if os.geteuid() == 0 else "Run as root")
            + "; without --stacks, mkwrite waits tells the reasons all the same.",
            Exit.NO_PERMISSION,
        )
    sampler = StackSampler()
    longest: list[Slow] = []

    def keep(events: list[Event]) -> None:
        calls = [sampler.slow(event) for event in events if isinstance(event, CallEvent)]
        longest[:] = nlargest(LONGEST, longest + calls, key=lambda call: call.event.took_ns)

    def look(seconds: float) -> None:
        session.wait(min(seconds, EVERY_S))
        sampler.look(session)

    options = session_options(**tracing, slower_ns=slower, waits=True)
    with opened(options, calls=True) as session, Stop() as stop:
        announce(session)
        for events in follow(session, stop, moment_after(duration), look if stacks else None):
            keep(events)
        final = session.finish()
        keep(taken(session))
        freezes = by_device(session.freezes())
    seen = sampler.seen()
    if folded:
        for line in folded_lines(seen):
            click.echo(line)
        Output(stderr=True).print(Group(*status(final)))
    else:
        _show(final, as_json, longest, freezes, seen if stacks else None)


def _show(
    found: Snapshot,
    as_json: bool,
    longest: Sequence[Slow],
    freezes: Mapping[int, Freeze],
    seen: Sequence[Seen] | None,
) -> None:
    """Print what was counted; ``seen`` is None where nobody looked at stacks."""
    from rich.console import Group

    from tracer.cli.output import Output, print_json
    from tracer.export.json.records import breakdown_dict, event_dict, freeze_dict, seen_dict, snapshot_dict
    from tracer.latency.breakdown import breakdowns
    from tracer.ui.failures import failure_counts
    from tracer.ui.status import status
    from tracer.ui.waits import WaitsView

    if not as_json:
        view = WaitsView(found, longest, seen or (), freezes)
        Output().print(Group(view, *failure_counts(found), *status(found)))
        return
    counts = snapshot_dict(found)
    stacks = seen is not None
    slow = [{**event_dict(call.event), **({"stack": call.stack} if stacks else {})} for call in longest]
    print_json(
        {
            "elapsed_ns": found.elapsed_ns,
            "waits": [
                {**breakdown_dict(one), "freeze": freeze_dict(freezes.get(one.dev))} for one in breakdowns(found)
            ],
            "longest": slow,
            **({} if seen is None else {"stacks": [seen_dict(one) for one in seen]}),
            **{name: counts[name] for name in ("failure_counts", "lost", "hooks", "notes")},
        }
    )


def _look_back(asked: LookBack, as_json: bool, slower_ns: int, filters: Mapping[str, Any]) -> None:
    from tracer.cli.output import Output
    from tracer.cli.replay import counted
    from tracer.cli.replay_events import SLOW, Longest
    from tracer.ui.waits import LONGEST

    longest = Longest(LONGEST, slower_ns, filters)
    found = counted(asked, filters, see=longest.see)
    Output(stderr=True).print(SLOW)
    _show(found, as_json, longest.calls, longest.freezes, None)
