"""Single keys from the terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from types import TracebackType
from typing import Any


class Keys:
    """The terminal gives each key at once while this is entered; where stdin is none, no keys come."""

    def __init__(self) -> None:
        self._fd: int | None = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._before: list[Any] = []

    def __enter__(self) -> Keys:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def take(self) -> None:
        """Let the terminal give each key at once."""
        if self._fd is not None:
            self._before = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd, termios.TCSADRAIN)

    def release(self) -> None:
        """Have the terminal as it was."""
        if self._fd is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def read(self, seconds: float) -> str:
        """Return the keys pressed, waiting up to ``seconds`` for the first; "" if none was."""
        if self._fd is None:
            time.sleep(seconds)
            return ""
        poll = select.poll()  # select() refuses descriptors from 1024 on
        poll.register(self._fd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return ""
        try:
            data = os.read(self._fd, 64)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self._fd = None
        return data.decode(errors="replace")
