"""Whose password is checked next: a check is slow on purpose, and whoever guesses is not to keep others waiting."""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

#: Checks that wait for their turn.
_SEATS: Final = 16
#: Clients of which it is remembered when they had their last turn.
_REMEMBERED: Final = 1024


class Busy(Exception):
    """There is no room for this request now; the next one may find it."""


def network(address: str) -> str:
    """Return what a client has many connections from: an IPv4 address, or the 64 bits of an IPv6 network."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


@dataclass(eq=False, slots=True)
class _Waiter:
    client: str
    displaced: bool = False


class Turns:
    """One turn at a time; the clients that wait take them in rotation, however many of one wait."""

    def __init__(self, seats: int = _SEATS) -> None:
        self._seats = seats
        self._changed = threading.Condition()
        self._waiting: list[_Waiter] = []
        self._taken = False
        self._last: dict[str, int] = {}
        self._turns = 0

    @contextmanager
    def turn(self, client: str) -> Iterator[None]:
        """Wait for a turn of ``client`` and have it. Raises Busy where too many of its own wait already."""
        with self._changed:
            self._wait(self._seated(client))
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()

    def _seated(self, client: str) -> _Waiter:
        if len(self._waiting) >= self._seats:
            crowd = Counter(one.client for one in self._waiting)
            largest, number = crowd.most_common(1)[0]
            if number <= crowd[client] + 1:
                raise Busy
            newest = [one for one in self._waiting if one.client == largest][-1]
            newest.displaced = True
            self._waiting.remove(newest)
            self._changed.notify_all()
        waiter = _Waiter(client)
        self._waiting.append(waiter)
        return waiter

    def _wait(self, waiter: _Waiter) -> None:
        while not waiter.displaced and (self._taken or self._next() is not waiter):
            self._changed.wait()
        if waiter.displaced:
            raise Busy
        self._waiting.remove(waiter)
        self._taken = True
        self._turns += 1
        if len(self._last) >= _REMEMBERED:
            self._last.clear()
        self._last[waiter.client] = self._turns

    def _next(self) -> _Waiter:
        """Return the first of the client whose last turn was longest ago."""
        return min(self._waiting, key=lambda one: self._last.get(one.client, 0))
