"""Metrics as a file for the textfile collector of node_exporter."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from pathlib import Path
from typing import Final

from tracer.errors import MkwriteError
from tracer.text import printable

_log = logging.getLogger(__name__)

_NAME: Final = "mkwrite.prom"
#: node_exporter runs as a user of its own, and reads whatever ends in ".prom".
_MODE: Final = 0o644


class Textfile:
    """``mkwrite.prom`` in a directory, replaced as a whole: a reader sees the old metrics or the new ones."""

    def __init__(self, directory: Path) -> None:
        """Open it; raises MkwriteError when the directory cannot be written to."""
        self.path = directory / _NAME
        try:
            with tempfile.NamedTemporaryFile(prefix=f".{_NAME}.", dir=directory):
                pass
        except OSError as error:
            raise self._unwritable(error) from error

    def write(self, metrics: bytes) -> None:
        """Replace the file. Raises MkwriteError."""
        try:
            _replace(self.path, metrics)
        except OSError as error:
            raise self._unwritable(error) from error

    def renew(self, metrics: bytes) -> None:
        """Replace the file. What hinders is logged: it may pass, and the file's age tells meanwhile."""
        try:
            self.write(metrics)
        except MkwriteError as error:
            _log.warning("%s", error.problem)

    def remove(self) -> None:
        """Nobody is to take the last counts for present ones."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _unwritable(self, error: OSError) -> MkwriteError:
        return MkwriteError(
            f"{printable(str(self.path))} cannot be written: {error.strerror}.",
            "Name the directory of node_exporter's --collector.textfile.directory, with room for a file in it.",
        )


def _replace(path: Path, content: bytes) -> None:
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(content)
            os.fchmod(fd, _MODE)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
