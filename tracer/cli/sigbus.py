"""``mkwrite sigbus``: one report per failure."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tracer.cli.look_back import look_back, look_back_options
from tracer.cli.options import (
    all_option,
    all_writes_option,
    duration_option,
    filter_options,
    filters_of,
    json_option,
    number_option,
    once_option,
    shown,
)

if TYPE_CHECKING:
    from tracer.diagnosis.explainer import Explained, Explainer, Notified, Repeated
    from tracer.model.failures import Failure
    from tracer.session import Session

#: How often what is only counted is told.
_REPEATS_S: Final = 1.0
_WAIT_S: Final = 0.2

EXAMPLES = """\b
Examples:
  mkwrite sigbus                       explain every SIGBUS and refused write
  mkwrite sigbus --once --json         wait for one, as JSON
  mkwrite sigbus --pid 4242            of one process
  mkwrite sigbus --since 03:00         what the exporter recorded since then
  mkwrite sigbus -- ./server -p 8080   run a command, and explain its death
"""


@click.command(epilog=EXAMPLES, context_settings={"allow_interspersed_args": False})
@number_option
@once_option
@duration_option
@json_option
@all_option
@all_writes_option
@look_back_options
@filter_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def sigbus(
    context: click.Context,
    /,
    number: int | None,
    once: bool,
    duration: int | None,
    as_json: bool,
    whole_host: bool,
    all_writes: bool,
    since: int | None,
    until: int | None,
    record: Path | None,
    command: tuple[str, ...],
    **filters: Any,
) -> None:
    """Explain each SIGBUS, refused write, and file that lost writes: who, which file, which errno, why, what to do.

    Waits, and prints a report for each; with -n the exit code is 1 if fewer came in time. What a process meets
    again and again is told once and then counted.

    With COMMAND, that and its children are watched, in a cgroup of their own, unless --all, --pid or --cgroup
    say whom else. The exit code is then COMMAND's.

    With --since, --until or --from, prints what `mkwrite export --record DIR` kept.
    """
    most = shown(number, once)
    live = ("duration", "whole_host", "all_writes", "command", "backend")
    if asked := look_back(context, since, until, record, live):
        from tracer.cli.replay import reports

        del filters["backend"]
        context.exit(reports(asked, filters, as_json, most))
    from tracer.cli.child import alone, check_command, run_command
    from tracer.cli.output import Output, check_reader, print_json
    from tracer.cli.run import Stop, announce, opened
    from tracer.cli.run import until as moment_after
    from tracer.diagnosis.explainer import Explainer
    from tracer.export.json.failures import explained_dict, notified_dict, repeated_dict
    from tracer.model.hooks import Backend
    from tracer.model.options import Options
    from tracer.ui.sigbus import notified, repeated, report
    from tracer.ui.status import status

    if command and (most or duration is not None):
        raise click.UsageError("A COMMAND sets the time: -n, --once and -d/--duration cannot be given with it.")
    if command:
        check_command(command)
    out, notices = Output(), Output(stderr=True)

    def show(explained: Explained) -> None:
        if as_json:
            print_json(explained_dict(explained))
        else:
            out.print_line(report(explained, out.width))

    def count(more: Repeated) -> None:
        if as_json:
            print_json(repeated_dict(more))
        else:
            out.print_line(repeated(more))

    def notify(news: Notified) -> None:
        if as_json:
            print_json(notified_dict(news))
        else:
            out.print_line(notified(news))

    with ExitStack() as stack:
        own = stack.enter_context(alone(command, whole_host, bool(filters["pid"] or filters["cgroup"])))
        chosen, backend = filters_of(**filters | ({"cgroup": (own.path,)} if own else {}))
        options = Options(backend, chosen, every_errno=backend is not Backend.TRACEPOINT, all_writes=all_writes)
        session = stack.enter_context(opened(options))
        stop = stack.enter_context(Stop())
        announce(session)
        explainer = Explainer(session.has_ended, as_json, session.file_losses)
        watch = _Watch(session, explainer, show, count, notify, most)
        if command:
            code = watch.meanwhile(lambda: run_command(command, lambda: None, stop, own and own.entered()))
        else:
            end = moment_after(duration)
            while not stop.requested and not watch.done and time.monotonic_ns() < end:
                watch.step(min(_WAIT_S, max(0.0, (end - time.monotonic_ns()) / 1e9)))
                check_reader()
            code = 1 if most and not watch.done else 0
        final = session.finish()
        watch.handle(session.failures())
        watch.tell_repeats()
    notices.print(*status(final), sep="\n")
    context.exit(code)


class _Watch:
    """Fetches failures, explains them and counts those that repeat."""

    def __init__(
        self,
        session: Session,
        explainer: Explainer,
        show: Callable[[Explained], object],
        count: Callable[[Repeated], object],
        notify: Callable[[Notified], object],
        most: int | None,
    ) -> None:
        self._session = session
        self._explainer = explainer
        self._show = show
        self._count = count
        self._notify = notify
        self._most = most
        self._shown = 0
        self._due = time.monotonic() + _REPEATS_S
        self._ended = False
        self._error: Exception | None = None
        self.done = False

    def step(self, timeout_s: float) -> None:
        """Wait for failures and tell of them; now and then, of those that were only counted."""
        self.handle(self._session.failures(timeout_s))
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _REPEATS_S
            self._session.follow_modules()
            self.tell_repeats()

    def handle(self, found: list[Failure]) -> None:
        """Explain those that are the first of their kind."""
        for explained in self._explainer.explain(found):
            if self.done:
                return
            self._show(explained)
            self._shown += 1
            self.done = self._shown == self._most

    def tell_repeats(self) -> None:
        """Tell how many more there were, and who was told of writes that were lost."""
        from tracer.diagnosis.explainer import Notified

        if self._most != 1:
            for more in self._explainer.repeats(self._session.bursts()):
                self._count(more)
            for news in self._explainer.updates():
                self._notify(news) if isinstance(news, Notified) else self._count(news)

    def meanwhile(self, run: Callable[[], int]) -> int:
        """Watch in a thread while ``run`` runs: the state of the host is to be read at once."""
        thread = threading.Thread(target=self._loop)
        # Signals are for run(), which passes them on.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            return run()
        finally:
            self._ended = True
            thread.join()
            if self._error:
                raise self._error

    def _loop(self) -> None:
        try:
            while not self._ended:
                self.step(_WAIT_S)
        except Exception as error:  # the command goes on; its end is that of meanwhile(), which raises it
            self._error = error
