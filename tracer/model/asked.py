"""What a session was not asked for: using it raises, and the error names the option."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

from tracer.errors import UsageError


class NotAsked(Mapping[Any, Any]):
    """Stands where counts would be; every use of it raises UsageError."""

    def __init__(self, what: str, option: str) -> None:
        self._what = what
        self._option = option

    def unless(self, asked: object) -> None:
        """Raise UsageError unless the session was asked."""
        if not asked:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise UsageError(
            f"This session does not tell {self._what}: it was not asked to.", f"Open it with Options({self._option})."
        )

    def __getitem__(self, key: object) -> NoReturn:
        self._refuse()

    def __iter__(self) -> Iterator[Any]:
        self._refuse()

    def __len__(self) -> int:
        self._refuse()


FAILURES: Final = NotAsked("failures", "failures=True")
WAITS: Final = NotAsked("what calls wait for, nor which are in flight", "waits=True")
SLOW_CALLS: Final = NotAsked("slow calls", "slower_ns=10_000_000")


def asked(counts: Mapping[Any, Any]) -> bool:
    """Whether the session was asked for these counts of a snapshot."""
    return not isinstance(counts, NotAsked)
