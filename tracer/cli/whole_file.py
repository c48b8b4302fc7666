"""A file that a command writes whole, or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import click

from tracer.errors import MkwriteError, UsageError
from tracer.text import printable

#: As the record's own files: others are not to read whose files and commands it names.
_MODE: Final = 0o640
_Function = TypeVar("_Function", bound=Callable[..., Any])


def whole_file_options(name: str) -> Callable[[_Function], _Function]:
    """Add ``-o``, whose value is ``name`` unless given, ``--force`` and ``--redact``."""

    def add(function: _Function) -> _Function:
        for option in (
            click.option("--redact", is_flag=True, help="For strangers: without command lines, and with short paths."),
            click.option("--force", is_flag=True, help="Replace a file that is there."),
            click.option(
                "-o",
                "--output",
                type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
                metavar="FILE",
                default=Path(name),
                show_default=True,
                help="Write it to this file; - is the standard output.",
            ),
        ):
            function = option(function)
        return function

    return add


@contextmanager
def whole_file(path: Path, replace: bool) -> Iterator[IO[bytes]]:
    """Provide what is to be the file, in its directory; it gets its name at the end. ``-`` is the standard output.

    Raises UsageError where there is one of that name, unless ``replace``; MkwriteError where it cannot be written.
    """
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if not replace and os.path.lexists(path):
        raise _is_there(path)
    try:
        fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(fd, _MODE)
            os.fsync(fd)
        if replace:
            Path(name).replace(path)
        else:
            _link(name, path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        with suppress(OSError):
            Path(name).unlink()


def _link(name: str, path: Path) -> None:
    """Give it its name, if nobody has that by now."""
    try:
        os.link(name, path)
    except FileExistsError:
        raise _is_there(path) from None
    except OSError:  # a filesystem without hard links
        Path(name).rename(path)


def _is_there(path: Path) -> UsageError:
    return UsageError(f"{printable(str(path))} is there already.", "Name another file, or replace it: --force.")


def _unwritable(path: Path, error: OSError) -> MkwriteError:
    return MkwriteError(
        f"{printable(str(path))} cannot be written: {error.strerror}.", "Name a file in a directory with room: -o."
    )
