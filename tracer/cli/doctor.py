"""``mkwrite doctor``: whether this machine can be traced, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.cli.options import json_option

if TYPE_CHECKING:
    from tracer.model import Hook

EXAMPLES = """\b
Examples:
  sudo mkwrite doctor            all that is to be known
  mkwrite doctor                 what can be seen without root
  sudo mkwrite doctor --json     for programs
  sudo mkwrite doctor --report   to paste into a bug report
"""


@click.command(epilog=EXAMPLES)
@json_option
@click.option("--report", "as_report", is_flag=True, help="Print a bug report's text, without names of this host.")
@click.pass_context
def doctor(context: click.Context, as_json: bool, as_report: bool) -> None:
    """Say what this kernel allows, which backend is used and why, and what is in the way.

    Every obstacle comes with what it costs and what to do. Where nothing forbids it, the hooks are attached
    for a moment. The exit code is 0 where tracing works, else that of the obstacle that decides.
    """
    from rich.text import Text

    from tracer.cli.names import version
    from tracer.cli.output import Output, print_json
    from tracer.doctor import diagnose
    from tracer.report import report_text
    from tracer.ui.doctor import DoctorView

    if as_json and as_report:
        raise click.UsageError("--json and --report exclude each other.")
    report = diagnose(_attempt)
    if as_report:
        Output().print_line(Text(report_text(report, version())))
    elif as_json:
        print_json(report.to_dict())
    else:
        Output().print(DoctorView(report))
    context.exit(int(report.exit_code))


def _attempt() -> tuple[Hook, ...]:
    from tracer.cli.run import opened
    from tracer.model import Options

    with opened(Options()) as session:
        return session.hooks
