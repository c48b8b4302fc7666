"""``mkwrite export``: metrics for Prometheus."""

from __future__ import annotations

import signal
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final

import click

from tracer.cli.names import PROGRAM, version
from tracer.cli.options import (
    AGE,
    SIZE,
    Duration,
    Renaming,
    by_option,
    duration_option,
    given,
    session_options,
    tracing_options,
)
from tracer.model.options import By, Options

EXAMPLES = """\b
Examples:
  mkwrite export                      serve http://127.0.0.1:9788/metrics
  mkwrite export --listen [::]:9788 --web.config.file web.yml
                                      to other machines, TLS and passwords
  mkwrite export --fs ext4 --fs xfs   two filesystems only
  mkwrite export --textfile DIR       leave the serving to node_exporter
  mkwrite export --cgroups            tell containers and pods apart
  mkwrite export --risk               what mapped files may still ask for, too
  mkwrite export --record DIR         remember, for --since of other commands
  mkwrite export --once -d 10s        ten seconds' metrics on stdout
"""

#: How long --once counts.
_ONCE_NS: Final = 1_000_000_000
#: What ends a service; SIGHUP is another request.
_ENDING: Final = (signal.SIGINT, signal.SIGTERM)
DEFAULT_LISTEN: Final = "127.0.0.1:9788"
#: The first that there is answers; packaging/mkwrite-exporter.service makes the first.
_USERS: Final = ("mkwrite", "nobody")


class Hangup:
    """Whether to read the configuration again: after each SIGHUP, while this is entered."""

    def __init__(self) -> None:
        # Counted, not flagged: one that comes between reading a flag and taking it back would be lost.
        self._came = self._seen = 0

    def __enter__(self) -> Hangup:
        self._before = signal.signal(signal.SIGHUP, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGHUP, self._before)

    def heard(self) -> bool:
        """Whether there was one since this was last asked."""
        came = self._came
        seen, self._seen = self._seen, came
        return came != seen

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._came += 1


def _give_up_rights(textfile: bool, web_config: bool, attaches: bool) -> None:
    """All but reading the counts, and what the options need; ``attaches``: it goes on hooking, or looks at others."""
    from tracer.host.privileges import ATTACHING, keep
    from tracer.model.capabilities import Capability

    keep({
        Capability.BPF,
        *(ATTACHING if attaches else []),
        *([Capability.DAC_OVERRIDE] if textfile else []),
        *([Capability.DAC_READ_SEARCH] if web_config else []),
    })  # fmt: skip


def _look_back(record: Path | None) -> str:
    """Return the command that shows what is recorded, but for the time."""
    from tracer.record.segments import DEFAULT
    from tracer.text import shell_word

    if record is None:
        return ""
    place = record.absolute()
    return f"{PROGRAM} sigbus" + ("" if place == DEFAULT else f" --from {shell_word(str(place))}")


@click.command(cls=Renaming, former={"--per": "--by"}, epilog=EXAMPLES)
@click.option("--listen", metavar="HOST:PORT", help=f"Where to serve.  [default: {DEFAULT_LISTEN}]")
@click.option(
    "--web.config.file",
    "web_config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TLS and passwords, as for other exporters; read again on SIGHUP.",
)
@click.option(
    "--textfile",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write DIR/mkwrite.prom every 10 s, and serve only with --listen.",
)
@click.option("--once", is_flag=True, help="Print one interval's metrics (-d, 1 s unless given), and end.")
@by_option
@click.option("--top", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, with --by.")
@click.option(
    "--max-sources",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Filesystems and handlers (with --by, each of whom) that have series of their own.",
)
@click.option("--cgroups", is_flag=True, help="Labels for container and pod.")
@click.option("--risk", is_flag=True, help="What mapped files may still ask of each filesystem, too.")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep a record there, to be looked back at (--since).",
)
@click.option(
    "--record-size",
    type=SIZE,
    default="256M",
    show_default=True,
    metavar="SIZE",
    help="The most that the record takes.",
)
@click.option("--record-age", type=AGE, default="14d", show_default=True, metavar="AGE", help="How long it goes back.")
@click.option(
    "--record-slower",
    type=Duration(),
    default="100ms",
    show_default=True,
    help="Record calls at least this slow, the 20 longest of each minute.",
)
@click.option(
    "--user", metavar="NAME", help="Whom root answers as.  [default: mkwrite, or nobody where there is no such user]"
)
@duration_option
@tracing_options
@click.pass_context
def export(
    context: click.Context,
    /,
    listen: str | None,
    web_config: Path | None,
    textfile: Path | None,
    once: bool,
    by: str | None,
    top: int,
    max_sources: int,
    cgroups: bool,
    risk: bool,
    record: Path | None,
    record_size: int,
    record_age: int,
    record_slower: int,
    user: str | None,
    duration: int | None,
    **tracing: Any,
) -> None:
    """Serve metrics for Prometheus, and a page for people.

    Calls, latency, outcomes and failures of page_mkwrite, wp faults, and the tracer's own losses and hooks.
    """
    from tracer.export.http.process import HttpProcess
    from tracer.export.http.server import Address
    from tracer.export.http.webconfig import WebFiles
    from tracer.export.prometheus.textfile import Textfile
    from tracer.host.memory import give_back_what_is_free
    from tracer.host.privileges import User

    if once and (listen or web_config):
        raise click.UsageError("--once does not serve: leave --listen and --web.config.file out")
    if cgroups and by not in (None, By.CGROUP):
        raise click.UsageError(f"--cgroups tells calls apart by cgroup: leave --by {by} out")
    if once and record:
        raise click.UsageError("--once counts one interval, which is no record: leave --record out")
    if given(context, "top") and not by:
        raise click.UsageError("--top says how many of --by: give that, too.")
    if given(context, "max_series") and not given(context, "max_sources"):
        said = "--max-series is room in the kernel; only in this release it bounds the sources, too (--max-sources)."
        click.echo(f"{PROGRAM}: {said}", err=True)
        max_sources = tracing["max_series"]
    address = None if once or (textfile and not listen) else Address.parse(listen or DEFAULT_LISTEN)
    load = partial(WebFiles.read, web_config) if web_config else WebFiles
    files = load()  # before it takes the time to attach
    become = User.named(*([user] if user else _USERS))
    file = Textfile(textfile) if textfile else None
    slower_ns = record_slower if record else None
    options = session_options(**tracing, by=By.CGROUP if cgroups else by, slower_ns=slower_ns, waits=True)
    # Sources that are gone keep their room in the kernel, so that has to be larger.
    room = replace(options, max_series=max(options.max_series, max_sources, Options.max_series), make_room=True)
    give_back_what_is_free()
    # Forked before the rest is imported and traced: nothing of that is in the memory of the process that answers.
    answering = HttpProcess(address, files, become) if address else nullcontext()
    from tracer.cli.run import Stop, follow, opened, taken, until
    from tracer.export.http.answers import exposition
    from tracer.export.http.daemon import Daemon
    from tracer.export.http.shown import Shown
    from tracer.export.prometheus.collector import MkwriteCollector
    from tracer.export.prometheus.label import Who
    from tracer.export.prometheus.risk_collector import RiskCollector
    from tracer.probes.plan import CORE
    from tracer.record.collector import RecordCollector
    from tracer.record.process import writer
    from tracer.record.recorder import Recorder
    from tracer.ui.sigbus import words
    from tracer.ui.status import hooks

    who = Who(By(by) if by else None, top, cgroups)
    # A SIGHUP that comes while it attaches is for the configuration, too.
    hangup = Hangup()
    serving = nullcontext() if once else hangup
    with (
        answering as http,
        writer(record, record_size, record_age) if record else nullcontext() as written,
        serving,
        opened(room) as session,
        Stop(Stop.SIGNALS if once else _ENDING) as stop,
    ):
        looking = RiskCollector() if risk else None
        verdicts = looking.verdicts if looking else tuple
        recorder = Recorder(session, written, version(), verdicts) if written else None
        source = recorder or session
        collector = MkwriteCollector(source, version(), max_sources, who, filters=options.filters)
        more = [*([looking] if looking else []), *([RecordCollector(recorder)] if recorder else [])]
        if once:
            for _ in follow(session, stop, until(_ONCE_NS if duration is None else duration)):
                pass
            metrics = exposition(collector, *more)
            if file:
                file.write(metrics)
            else:
                click.echo(metrics, nl=False)
            return
        # Through the collector, who has to see every snapshot where they make room.
        first = collector.read() or source.snapshot()
        # Modules that come may have to be hooked, and other processes be looked at.
        attaches = (
            risk or record is not None or not (first.tracepoints or any(hook.function == CORE for hook in first.hooks))
        )
        _give_up_rights(bool(textfile), bool(web_config), attaches)
        shown = Shown(session, first, version(), words, looking, _look_back(record)) if http else None
        with Daemon(collector, shown, http, load, file, more) as daemon:
            if http:
                click.echo(f"{PROGRAM}: listening on {http.url}/metrics", err=True)
            for line in (hooks(first).plain, *first.notes):
                click.echo(f"{PROGRAM}: {line}", err=True)
            for events in follow(session, stop, until(duration)):
                daemon.beat(events)
                if recorder:
                    recorder.beat(events)
                if hangup.heard():
                    daemon.reload()
            if recorder:
                recorder.end(session.finish(), taken(session))
