"""Events that nobody has fetched yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: So many wait to be fetched.
KEPT: Final = 16384


class Unread(Generic[T]):
    """The last ``KEPT`` of them, the oldest first; ``dropped`` counts those that there was no room for."""

    def __init__(self) -> None:
        self._kept: deque[T] = deque()
        self.dropped = 0

    def __bool__(self) -> bool:
        return bool(self._kept)

    def add(self, events: Iterable[T]) -> None:
        """Take in what has come."""
        for event in events:
            self._kept.append(event)
            if len(self._kept) > KEPT:
                self._kept.popleft()
                self.dropped += 1

    def take(self) -> list[T]:
        """Fetch them all."""
        found = list(self._kept)
        self._kept.clear()
        return found
