"""Events that nobody fetches: the last are kept, the others counted."""

from __future__ import annotations

import pytest

from tracer.decode.unread import Unread


def test_of_too_many_the_oldest_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.decode.unread.KEPT", 3)
    unread: Unread[int] = Unread()
    unread.add([1, 2])
    unread.add([3, 4, 5])
    assert (unread.take(), unread.dropped) == ([3, 4, 5], 2)
    unread.add([6, 7, 8])
    assert (unread.take(), unread.take(), unread.dropped) == ([6, 7, 8], [], 2)
    assert not unread
