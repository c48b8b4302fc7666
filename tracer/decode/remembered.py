"""What the kernel remembers until the session ends, and after it what was read last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from tracer.model.failures import Actor

T = TypeVar("T")


class Remembered(Generic[T]):
    """Something that ``look`` reads from the maps, as long as they are open."""

    def __init__(self, look: Callable[[], T]) -> None:
        self._look = look
        self._last: T | None = None

    def read(self, open_: bool = True) -> T:
        """Read it, or return what was read last if the maps are not open any more."""
        if open_ or self._last is None:
            self._last = self._look()
        return self._last


def actor_of(id_: int, comm: bytes) -> Actor:
    """Return who it was: ``id_`` is process and thread in one, ``comm`` ends with a NUL."""
    return Actor(id_ >> 32, id_ & 0xFFFFFFFF, comm.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"))
