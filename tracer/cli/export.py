"""``mkwrite export``: metrics for Prometheus."""

from __future__ import annotations

from typing import Any

import click

from tracer.cli.names import PROGRAM
from tracer.cli.options import duration_option, session_options, tracing_options

EXAMPLES = """\b
Examples:
  mkwrite export                         serve http://127.0.0.1:9788/metrics
  mkwrite export --listen [::]:9788      to other machines, too
  mkwrite export --fs ext4 --fs xfs      two filesystems only
  mkwrite export --once -d 10s           ten seconds' metrics on stdout
"""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(PROGRAM)
    except PackageNotFoundError:
        return "unknown"


@click.command(epilog=EXAMPLES)
@click.option("--listen", default="127.0.0.1:9788", show_default=True, metavar="HOST:PORT", help="Where to serve.")
@click.option("--once", is_flag=True, help="Print the metrics, after --duration if given, and end.")
@duration_option
@tracing_options
def export(listen: str, once: bool, duration: int | None, **tracing: Any) -> None:
    """Serve metrics for Prometheus.

    Calls, latency, outcomes and failures of page_mkwrite, wp faults, and the tracer's own losses and hooks.
    """
    from tracer.cli.run import Stop, follow, opened, until
    from tracer.export.collector import MkwriteCollector, exposition
    from tracer.export.server import Address, serve
    from tracer.ui.status import hooks

    address = Address.parse(listen)
    with opened(session_options(**tracing)) as session, Stop() as stop:
        collector = MkwriteCollector(session, _version())
        if once:
            for _ in follow(session, stop, until(duration or 0)):
                pass
            click.echo(exposition(collector), nl=False)
            return
        with serve(collector, address, _version()) as server:
            click.echo(f"{PROGRAM}: listening on http://{server.address}/metrics", err=True)
            click.echo(f"{PROGRAM}: {hooks(session.snapshot()).plain}", err=True)
            for _ in follow(session, stop, until(duration)):
                pass
