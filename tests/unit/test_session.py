"""A session's queues and its end, on rings that are pipes: no kernel is traced."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from failure_samples import REFUSED
from samples import HOOKS, event

import tracer.session
from tracer.decode.snapshots import Tallied
from tracer.model.calls import CallEvent
from tracer.model.failures import Failure
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.probes.plan import Opened
from tracer.session import Session

LONG_S = 600.0


class Ring:
    """What is put in comes out, as it is."""

    type = None

    def __init__(self) -> None:
        self._readable, self._writable = os.pipe()
        self._records: deque[Any] = deque()

    def put(self, record: Any) -> None:
        self._records.append(record)
        os.write(self._writable, b".")

    def fileno(self) -> int:
        return self._readable

    def take(self) -> list[Any]:
        taken = [self._records.popleft() for _ in range(len(self._records))]
        if taken:
            os.read(self._readable, len(taken))
        return taken

    def close(self) -> None:
        os.close(self._readable)
        os.close(self._writable)


class Rings:
    """A tracer that counts nothing."""

    programs = ()

    def __init__(self) -> None:
        self.events, self.failures = Ring(), Ring()
        none: dict[str, Any] = {"numbers": dict, "bursts": dict, "file_losses": list, "freezes": list}
        self.maps = SimpleNamespace(**none, tellings=lambda: (0, 0), lost=lambda: [0] * 6, wp_counts=list)
        self.hooks = HOOKS

    def missed(self) -> int:
        return 0

    def detach(self) -> None:
        self.hooks = ()

    def close(self) -> None:
        self.detach()
        self.events.close()
        self.failures.close()


class Reader:
    """Records are events already."""

    waits = False

    def __init__(self, *_: object) -> None:
        pass

    def read(self, records: list[Any]) -> list[Any]:
        return records

    def rest(self) -> list[Any]:
        return []


class Counts:
    def __init__(self, *_: object) -> None:
        pass

    def read(self, *arguments: Any, **_: Any) -> Tallied:
        drain = arguments[2]
        drain()
        return Tallied()


@pytest.fixture
def rings(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rings]:
    rings = Rings()
    opened = Opened(rings, Backend.FENTRY, frozenset(), ())  # type: ignore[arg-type]
    monkeypatch.setattr(tracer.session, "open_tracer", lambda *_: opened)
    monkeypatch.setattr(tracer.session, "CallReader", Reader)
    monkeypatch.setattr(tracer.session, "FailureReader", Reader)
    monkeypatch.setattr(tracer.session, "Tally", Counts)
    monkeypatch.setattr(tracer.session, "gone_in", lambda *_: None)
    return rings


@pytest.fixture
def session(rings: Rings) -> Iterator[Session]:
    with Session(Options(slower_ns=1)) as session:
        yield session


def started(function: Any) -> tuple[threading.Thread, list[Any]]:
    """A thread that is in the function's wait, and where its result will be."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function(LONG_S)), daemon=True)
    thread.start()
    return thread, results


def test_slow_calls_are_waited_for_though_something_else_comes(session: Session, rings: Rings) -> None:
    thread, results = started(session.events)
    rings.failures.put(REFUSED)
    thread.join(0.5)
    assert thread.is_alive()
    rings.events.put(event())
    thread.join(30)
    assert results == [[event()]]
    assert session.failures() == [REFUSED]


def test_what_another_thread_takes_in_is_found_at_once(session: Session, rings: Rings) -> None:
    thread, results = started(session.failures)
    for _ in range(100):  # whoever of the two takes it out of the ring
        if not thread.is_alive():
            break
        rings.failures.put(REFUSED)
        session.snapshot()
        thread.join(0.01)
    thread.join(30)
    found: list[Failure | CallEvent] = results[0]
    assert found[0] == REFUSED


@pytest.mark.parametrize("ask", [Session.events, Session.failures, Session.wait])
def test_the_end_wakes_who_waits_in_another_thread(session: Session, ask: Any) -> None:
    thread, results = started(lambda timeout_s: ask(session, timeout_s))
    thread.join(0.1)
    assert thread.is_alive()
    session.finish()
    thread.join(30)
    assert results in ([[]], [None])


def test_what_was_hooked_is_told_after_the_end(session: Session) -> None:
    assert session.hooks == HOOKS
    final = session.finish()
    assert session.hooks == final.hooks == HOOKS
