"""A fork of a process that traces: hooks stay on for as long as anybody holds their descriptors, so it lets go."""

from __future__ import annotations

import os
from typing import Final, Protocol
from weakref import WeakSet


class Holder(Protocol):
    """What holds hooks."""

    def abandon(self) -> None:
        """In a fork of the process that attached: let go of the hooks, which are that process's."""


_holders: Final[WeakSet[Holder]] = WeakSet()


def let_go_in_forks(holder: Holder) -> None:
    """Have a holder abandon its hooks in every child that Python forks from now on."""
    _holders.add(holder)


def _abandon() -> None:
    for holder in list(_holders):
        holder.abandon()


os.register_at_fork(after_in_child=_abandon)
