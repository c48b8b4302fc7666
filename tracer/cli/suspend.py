"""Ctrl-Z while the screen is ours: give the terminal back, stop, and take it again when we go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def suspendable(leave: Callable[[], None], enter: Callable[[], None]) -> Iterator[None]:
    """Call ``leave`` before SIGTSTP stops the process, and ``enter`` when SIGCONT lets it go on."""

    def stop(number: int, frame: FrameType | None) -> None:
        leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        # Here the process stands still.
        signal.signal(signal.SIGTSTP, stop)
        enter()

    before = signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)
