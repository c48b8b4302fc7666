"""Between the commands and the process: errors become messages and exit codes, never tracebacks."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from tracer.cli.names import DEBUG_VAR, PROGRAM
from tracer.errors import Exit, MkwriteError
from tracer.text import printable

#: What writing output can meet that is no fault of ours.
_OUTPUT_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})


class Interrupted(KeyboardInterrupt):
    """A signal that asks to end, other than Ctrl-C's."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def guarded(command: Callable[[], int]) -> int:
    """Run ``command`` and return its exit code, or that of the error it ended with, once explained."""
    _prepare()
    try:
        code = command()
        sys.stdout.flush()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    except KeyboardInterrupt as interrupt:
        code = 128 + (interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT)
    except MkwriteError as error:
        code = error.code
        _explain(error.problem, error.cure)
    except OSError as error:
        if error.errno in _OUTPUT_ERRORS:
            code = Exit.FAILED
            _explain(f"The output cannot be written: {error.strerror}.", "Make room, or write elsewhere.")
        elif error.errno == errno.EMFILE:
            code = Exit.FAILED
            _explain("This process has too many files open.", "Raise the limit: ulimit -n, or LimitNOFILE= in a unit.")
        else:
            code = _internal(error)
    except Exception as error:
        code = _internal(error)
    _settle_output()
    return int(code)


def _prepare() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    if sys.stdout is None:  # closed by the caller
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(number)


def _explain(problem: str, cure: str) -> None:
    lines = [f"{PROGRAM}: {problem}", *cure.split("\n")]
    with contextlib.suppress(OSError):
        print("\n".join(map(printable, lines)), file=sys.stderr, flush=True)


def _internal(error: Exception) -> Exit:
    if os.environ.get(DEBUG_VAR):
        traceback.print_exception(error)
    _explain(
        f"internal error: {type(error).__name__}: {error}",
        f"Please report it, with what it prints when {DEBUG_VAR}=1 is set.",
    )
    return Exit.FAILED


def _settle_output() -> None:
    """Write out what is buffered; drop what cannot be written, lest the interpreter complains of it."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
