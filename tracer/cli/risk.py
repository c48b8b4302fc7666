"""``mkwrite risk``: who would be refused next."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.options import INTERVAL, duration_option, given, host_filters, host_options, json_option

if TYPE_CHECKING:
    from tracer.cli.run import Stop

EXAMPLES = """\b
Examples:
  sudo mkwrite risk                  what mapped files may still ask for
  sudo mkwrite risk --above 80       a check for monitoring, that warns early
  sudo mkwrite risk --watch -i 10s   how fast it goes, and when it is gone
  sudo mkwrite risk --fs xfs --json  for programs
"""


def _finite(context: click.Context, parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter("a number is needed.", context, parameter)
    return value


@click.command(epilog=EXAMPLES)
@host_options
@click.option(
    "--above",
    type=click.FloatRange(min=0),
    default=100.0,
    callback=_finite,
    show_default=True,
    metavar="PERCENT",
    help="Exit with 20 if files may ask for more than that part of what is free.",
)
@click.option("--watch", is_flag=True, help="Look again and again, and tell when they will be refused.")
@click.option("-i", "--interval", type=INTERVAL, default="5s", show_default=True, help="Time between looks.")
@duration_option
@click.option("--remote", is_flag=True, help="Ask network filesystems and FUSE, too: that may hang.")
@json_option
@click.pass_context
def risk(
    context: click.Context,
    /,
    above: float,
    watch: bool,
    interval: int,
    duration: int | None,
    remote: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Say which mapped files may ask for more space than is left for them.

    For each filesystem and quota: what the files that are mapped shared and writable may still ask for, and
    what is free to them. Nothing is traced, read or changed. The exit code is 20 where they may ask for too much,
    else 28 where not all could be looked at.
    """
    from tracer.cli.output import Output, print_json
    from tracer.cli.run import Stop, until
    from tracer.errors import Exit
    from tracer.export.json.host import risk_dict
    from tracer.mappings.risk import Forecasts, forecasts
    from tracer.mappings.survey import Survey, survey
    from tracer.ui.risk import RiskView

    out = Output()

    def show(found: Survey, coming: Forecasts | None) -> None:
        if as_json:
            print_json(risk_dict(found, coming))
        else:
            out.print(RiskView(found, coming), crop=False)  # commands may be longer than a line

    if not watch and (duration is not None or given(context, "interval")):
        raise click.UsageError("-i/--interval and -d/--duration go with --watch.")
    chosen = host_filters(**filters)
    found = survey(chosen, remote=remote)
    if watch:
        with Stop() as stop:
            end = until(duration)
            show(found, forecasts((), found.verdicts, 0))
            while time.monotonic_ns() < end and _waited(stop, min(time.monotonic_ns() + interval, end)):
                before, found = found, survey(chosen, remote=remote)
                if not as_json:
                    out.print()
                show(found, forecasts(before.verdicts, found.verdicts, found.monotonic_ns - before.monotonic_ns))
    else:
        show(found, None)
    if any(verdict.used * 100 > above for verdict in found.verdicts):
        context.exit(Exit.AT_RISK)
    if found.cut:
        context.exit(Exit.BEYOND_END)
    if found.unseen:
        context.exit(Exit.NOT_ALL_SEEN)


def _waited(stop: Stop, until_ns: int) -> bool:
    """Wait for a moment of CLOCK_MONOTONIC; whether it came before a request to end."""
    from tracer.cli.run import SLICE_NS

    while not stop.requested and (left := until_ns - time.monotonic_ns()) > 0:
        time.sleep(min(left, SLICE_NS) / 1e9)
    return not stop.requested
