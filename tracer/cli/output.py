"""Where output goes: a terminal, a pipe or a file."""

from __future__ import annotations

import os
import select
from collections.abc import Mapping
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from tracer.export.json.records import json_line

#: Columns of output that is no terminal: it is not to lose what a screen has no room for.
WIDE: Final = 250


class Output(Console):
    """A console without markup; where it is no terminal, it is wide and has no escape codes."""

    def __init__(self, file: TextIO | None = None, *, stderr: bool = False) -> None:
        super().__init__(file=file, stderr=stderr, markup=False, emoji=False, highlight=False)
        if not self.is_terminal and not os.environ.get("COLUMNS", "").strip("0"):
            self.width = WIDE
        elif not self.width:
            self.width = 80  # COLUMNS=0 on a terminal

    def print_line(self, text: Text) -> None:
        """Print one line at once, however long it is."""
        self.print(text, soft_wrap=True)
        self.file.flush()

    def on_broken_pipe(self) -> None:
        """Leave it to the entry point: rich would end the process here, with a code of its own."""
        raise BrokenPipeError


def print_json(record: Mapping[str, object], file: TextIO | None = None) -> None:
    """Print a record as one line, at once."""
    print(json_line(record), file=file, flush=True)


def check_reader() -> None:
    """Raise BrokenPipeError if nobody reads the standard output any more: there may be nothing to write for long."""
    poll = select.poll()
    poll.register(1, 0)
    if any(happened & select.POLLERR for _, happened in poll.poll(0)):
        raise BrokenPipeError
