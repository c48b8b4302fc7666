"""Running a command while something else goes on, as if it ran alone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tracer.errors import Exit, MkwriteError

_FORWARDED: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_CHECK_S: Final = 0.2


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


def run_command(command: Sequence[str], meanwhile: Callable[[], object]) -> int:
    """Run ``command`` without a shell to its end, calling ``meanwhile`` some times a second.

    Returns its exit code as a shell tells it (128 + the signal that killed it). Signals sent to this
    process are passed on; those of the terminal reach the command anyway, and it decides what they mean.
    Raises MkwriteError if it cannot be run.
    """
    try:
        child = subprocess.Popen(command)
    except OSError as error:
        raise MkwriteError(
            f"{command[0]!r} cannot be run: {error.strerror}.", "Check the file.", Exit.CANNOT_RUN
        ) from error
    # Blocked only now: the command would inherit it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
    try:
        while child.poll() is None:
            meanwhile()
            info = signal.sigtimedwait(_FORWARDED | {signal.SIGCHLD}, _CHECK_S)
            # si_code is positive for signals of the kernel, of a terminal then: all its processes have those of keys.
            # That it is gone only the leader of its session hears (__tty_hangup in drivers/tty/tty_io.c).
            if info and info.si_signo in _FORWARDED and (info.si_code <= 0 or info.si_signo == signal.SIGHUP):
                child.send_signal(info.si_signo)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = child.returncode
    return code if code >= 0 else 128 - code
