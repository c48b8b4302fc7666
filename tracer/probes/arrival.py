"""Waiting for what the programs send, in any thread, until tracing ends."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

#: poll(2) takes an int of milliseconds.
_LONGEST_S: Final = 1e6


class Arrival:
    """Wakes who waits when a ring buffer has something, when another thread took it out, and when tracing ends."""

    def __init__(self, rings: Iterable[int]) -> None:
        """``rings`` are descriptors that are readable when something has come; they may be closed after ``end``."""
        self._rings = tuple(rings)
        self._lock = threading.Lock()
        #: An eventfd of each thread that waits.
        self._waiting: set[int] = set()
        self._ended = False

    @contextmanager
    def waiting(self) -> Iterator[Callable[[float], None]]:
        """Provide a function that waits for up to so many seconds.

        What comes after the block was entered ends its wait.
        """
        mine = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            with self._lock:
                self._waiting.add(mine)
            yield lambda timeout_s: self._wait(mine, timeout_s)
        finally:
            with self._lock:
                self._waiting.discard(mine)
            os.close(mine)

    def _wait(self, mine: int, timeout_s: float) -> None:
        if self._ended or timeout_s <= 0:
            return
        poll = select.poll()
        for descriptor in (mine, *self._rings):
            poll.register(descriptor, select.POLLIN)
        # Should the rings be closed by now, and their numbers be others', `mine` is readable: end() came first.
        poll.poll(min(timeout_s, _LONGEST_S) * 1000)
        with suppress(BlockingIOError):
            os.eventfd_read(mine)

    def wake(self) -> None:
        """Wake everybody who waits: what has come may not be in the rings any more."""
        with self._lock:
            for one in self._waiting:
                os.eventfd_write(one, 1)

    def end(self) -> None:
        """Wake everybody, and let nobody wait any more."""
        self._ended = True
        self.wake()
