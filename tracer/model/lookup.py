"""Finding a series in an earlier snapshot, though its filesystem may have had another name then, or none."""

from __future__ import annotations

from collections.abc import Container, Hashable, Mapping
from typing import Generic, Protocol, TypeVar


class Named(Hashable, Protocol):
    """A key with names in it."""

    @property
    def nameless(self) -> Hashable:
        """The key without them."""


K = TypeVar("K", bound=Named)
V = TypeVar("V")


class Earlier(Generic[K, V]):
    """Values of an earlier snapshot; what is ``now`` under another name is not there under the one that it had."""

    def __init__(self, values: Mapping[K, V], now: Container[K]) -> None:
        self._values = values
        self._now = now
        self._nameless: dict[Hashable, V] | None = None

    def get(self, key: K) -> V | None:
        """Return what there was of it; None if nothing."""
        if (value := self._values.get(key)) is not None:
            return value
        if self._nameless is None:  # names change rarely
            self._nameless = {k.nameless: value for k, value in self._values.items() if k not in self._now}
        return self._nameless.get(key.nameless)
