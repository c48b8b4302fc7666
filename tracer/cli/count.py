"""``mkwrite count``: exact counts, for a time or while a command runs."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from tracer.cli.look_back import look_back, look_back_options
from tracer.cli.options import all_option, by_option, duration_option, json_option, session_options, tracing_options

if TYPE_CHECKING:
    from tracer.model.snapshot import Snapshot

EXAMPLES = """\b
Examples:
  mkwrite count -d 10s                     everything, for ten seconds
  mkwrite count -- make -j8                of a command and its children
  mkwrite count --all -- make -j8          of the host, while it runs
  mkwrite count --fs ext4 --by file -d 1m  which files, on ext4
  mkwrite count --since -2h                what the exporter recorded
  mkwrite count --json -o counts.json -- ./benchmark
"""


class _OutputFile(click.File):
    """A file that is opened at once, but not while the shell completes a command line."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if ctx and ctx.resilient_parsing else super().convert(value, param, ctx)


@click.command(epilog=EXAMPLES, context_settings={"allow_interspersed_args": False})
@duration_option
@click.option("-o", "--output", type=_OutputFile("a", lazy=False), help="Write the counts to this file.")
@by_option
@json_option
@all_option
@look_back_options
@tracing_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def count(
    context: click.Context,
    /,
    duration: int | None,
    output: TextIO | None,
    as_json: bool,
    whole_host: bool,
    since: int | None,
    until: int | None,
    record: Path | None,
    command: tuple[str, ...],
    **tracing: Any,
) -> None:
    """Count calls exactly, for a time or while COMMAND runs.

    One line per device, handler, path, initiator and outcome, then wp faults and losses. With COMMAND, that and
    its children are counted, in a cgroup of their own, unless --all, --pid or --cgroup say whom else. The exit
    code is then COMMAND's.

    With --since, --until or --from, prints what `mkwrite export --record DIR` kept: the minutes that the time touches.
    """
    if asked := look_back(context, since, until, record, ("duration", "whole_host", "command", "backend")):
        from tracer.cli.replay import counted

        _show(counted(asked, tracing), as_json, output, "host")
        return
    from tracer.cli.child import alone, check_command, run_command
    from tracer.cli.run import Stop, announce, follow, opened, taken
    from tracer.cli.run import until as moment_after

    if command and duration is not None:
        raise click.UsageError("-d/--duration and a COMMAND exclude each other: either sets the time.")
    if command:
        check_command(command)
    code = 0
    with (
        alone(command, whole_host, bool(tracing["pid"] or tracing["cgroup"])) as own,
        opened(session_options(**tracing | ({"cgroup": (own.path,)} if own else {}))) as session,
        Stop() as stop,
    ):
        before = session.snapshot()
        announce(session)
        if command:
            code = run_command(command, lambda: taken(session), stop, own and own.entered())
        else:
            for _ in follow(session, stop, moment_after(duration)):
                pass
        found = session.finish().since(before)
    _show(found, as_json, output, "command" if own else "host", (tracing["by"] or "").upper())
    context.exit(code)


def _show(found: Snapshot, as_json: bool, output: TextIO | None, watched: str, who: str = "") -> None:
    from tracer.cli.output import Output, print_json
    from tracer.export.json.records import snapshot_dict
    from tracer.ui.count import CountView

    if output:
        _empty(output)  # not before: where tracing is refused, what was there stays
    if as_json:
        print_json({"watched": watched, **snapshot_dict(found)}, output)
    else:
        Output(output).print(CountView(found, who=who))


def _empty(output: TextIO) -> None:
    """Make room in a file; a pipe has nothing to lose, and what the standard output is, COMMAND wrote to, too."""
    there = os.fstat(output.fileno())
    if stat.S_ISREG(there.st_mode) and not os.path.samestat(there, os.fstat(1)):
        output.truncate(0)
