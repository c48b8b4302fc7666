"""Running a command while something else goes on, as if it ran alone."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import click

from tracer.cli.names import PROGRAM
from tracer.cli.run import Stop
from tracer.errors import Exit, MkwriteError
from tracer.host.own_cgroup import OwnCgroup
from tracer.text import printable

_FORWARDED: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_CHECK_S: Final = 0.2
#: What Python ignores, and programs do not (Py_InitializeEx).
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)


def check_command(command: Sequence[str]) -> None:
    """Raise MkwriteError if the command cannot be found, or is nothing that can be run."""
    if shutil.which(command[0]) is None:
        if shutil.which(command[0], os.F_OK) or ("/" in command[0] and Path(command[0]).exists()):
            raise MkwriteError(
                f"{command[0]!r} cannot be run.", "It is no program, or may not be run.", Exit.CANNOT_RUN
            )
        raise MkwriteError(
            f"There is no command {command[0]!r}.",
            "Check its name and PATH, as root sees it.",
            Exit.NOT_FOUND,
        )


@contextmanager
def alone(command: Sequence[str], whole_host: bool, chosen: bool) -> Iterator[OwnCgroup | None]:
    """Provide a cgroup for the command, to be watched alone; None where the host is to be watched, or has to be.

    ``whole_host``: that is asked for (--all). ``chosen``: the processes to be watched are (--pid, --cgroup).
    """
    if whole_host and not command:
        raise click.UsageError("--all goes with a COMMAND: without one, the whole host is watched anyhow.")
    with ExitStack() as stack:
        own = None
        if command and not whole_host and not chosen:
            try:
                own = stack.enter_context(OwnCgroup())
            except OSError as error:
                reason = printable(error.strerror or str(error))
                click.echo(
                    f"{PROGRAM}: The whole host is watched: COMMAND gets no cgroup of its own ({reason}).", err=True
                )
        yield own


def run_command(
    command: Sequence[str],
    meanwhile: Callable[[], object],
    stop: Stop,
    inside: AbstractContextManager[object] | None = None,
) -> int:
    """Run ``command`` without a shell to its end, calling ``meanwhile`` some times a second.

    Returns its exit code as a shell tells it (128 + the signal that killed it). Signals sent to this process are
    passed on, from the moment on when ``stop`` was entered: one that came before the command did keeps it from being
    run. Those of the terminal reach the command anyway, and it decides what they mean. It is started with ``inside``
    entered. Raises MkwriteError if it cannot be run.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    try:
        if stop.requested:
            return 128 + stop.number
        with inside or nullcontext():
            pid = _spawn(command, before)
        ended = 0
        while not ended:
            meanwhile()
            info = signal.sigtimedwait(_FORWARDED | {signal.SIGCHLD}, _CHECK_S)
            # si_code is positive for signals of the kernel, of a terminal then: all its processes have those of keys.
            # That it is gone only the leader of its session hears (__tty_hangup in drivers/tty/tty_io.c).
            if info and info.si_signo in _FORWARDED and (info.si_code <= 0 or info.si_signo == signal.SIGHUP):
                os.kill(pid, info.si_signo)
            ended, status = os.waitpid(pid, os.WNOHANG)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _spawn(command: Sequence[str], mask: Iterable[int]) -> int:
    """Start the command with this signal mask, and without Python's dispositions; its pid."""
    try:
        return os.posix_spawnp(command[0], list(command), os.environ, setsigmask=mask, setsigdef=_IGNORED_BY_PYTHON)
    except OSError as error:
        raise MkwriteError(
            f"{command[0]!r} cannot be run: {error.strerror}.", "Check the file.", Exit.CANNOT_RUN
        ) from error
