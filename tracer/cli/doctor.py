"""``mkwrite doctor``: whether this machine can be traced, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.cli.options import Renaming, json_option

if TYPE_CHECKING:
    from tracer.model.hooks import Hook

EXAMPLES = """\b
Examples:
  sudo mkwrite doctor            all that is to be known
  mkwrite doctor                 what can be seen without root
  sudo mkwrite doctor --json     for programs
  sudo mkwrite doctor --report   to paste into a bug report
  sudo mkwrite doctor --filesystems
                                 what each mounted filesystem does with a write to a mapping
"""


@click.command(cls=Renaming, former={"--fs": "--filesystems"}, epilog=EXAMPLES)
@click.option("--filesystems", is_flag=True, help="Show the mounted filesystems instead: handlers, refusals, peers.")
@json_option
@click.option("--report", "as_report", is_flag=True, help="Print a bug report's text, without names of this host.")
@click.pass_context
def doctor(context: click.Context, filesystems: bool, as_json: bool, as_report: bool) -> None:
    """Say what this kernel allows, which backend is used and why, and what is in the way.

    Every obstacle comes with what it costs and what to do. Where nothing forbids it, the hooks are attached
    for a moment. The exit code is 0 where tracing works, else that of the obstacle that decides; with --filesystems
    it is 28 where daemons of FUSE filesystems could not be seen.
    """
    from rich.text import Text

    from tracer.cli.names import version
    from tracer.cli.output import Output, print_json
    from tracer.doctor.bug_report import report_text
    from tracer.doctor.checkup import checkup
    from tracer.errors import Exit
    from tracer.ui.doctor import DoctorView

    if as_report and (as_json or filesystems):
        raise click.UsageError("--report goes with neither --json nor --filesystems.")
    if filesystems:
        if not _filesystems(as_json):
            context.exit(Exit.NOT_ALL_SEEN)
        return
    report = checkup(_attempt)
    if as_report:
        Output().print_line(Text(report_text(report, version())))
    elif as_json:
        print_json(report.to_dict())
    else:
        Output().print(DoctorView(report))
    context.exit(int(report.exit_code))


def _attempt() -> tuple[Hook, ...]:
    from tracer.cli.run import opened
    from tracer.model.options import Options

    with opened(Options()) as session:
        return session.hooks


def _filesystems(as_json: bool) -> bool:
    """Show them; whether all was seen."""
    from tracer.cli.output import Output, print_json
    from tracer.host.mounts import Mounts
    from tracer.host.peers import fuse_daemons, unseen
    from tracer.kernel.symbols import Symbols
    from tracer.mappings.mounted import filesystems, unknown_peers
    from tracer.ui.mounted import MountedView

    handlers = Symbols().handlers()
    rows = filesystems(Mounts.read(), fuse_daemons(), handlers.__contains__)
    missing = unknown_peers(rows, unseen)
    if as_json:
        print_json({"filesystems": [row.to_dict() for row in rows], "unseen": list(missing)})
    else:
        Output().print(MountedView(rows, missing))
    return not missing
