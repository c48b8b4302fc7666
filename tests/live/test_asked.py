"""A session tells failures unless that was declined; what it was not asked for, it refuses to tell."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.live.guest import BACKENDS, Backend, Options
from tracer.errors import UsageError
from tracer.failure import Class
from tracer.session import Session

from .guest import eventually, run

#: Each with how it is asked for.
QUESTIONS: dict[str, tuple[Callable[[Session], object], str]] = {
    "failures": (lambda session: session.failures(5), r"Options\(failures=True\)"),
    "bursts": (lambda session: session.bursts(), r"Options\(failures=True\)"),
    "counts of failures": (lambda session: dict(session.snapshot().failures), r"Options\(failures=True\)"),
    "slow calls": (lambda session: session.events(5), r"Options\(slower_ns="),
    "in flight": (lambda session: session.in_flight(), r"Options\(waits=True\)"),
    "waits": (lambda session: dict(session.snapshot().waits), r"Options\(waits=True\)"),
}


@pytest.mark.parametrize("kind", [*BACKENDS, pytest.param(Backend.TRACEPOINT, marks=pytest.mark.native)], ids=str)
def test_what_was_not_asked_for_raises_and_names_the_option(kind: Backend) -> None:
    with Session(Options(kind, failures=False)) as session:
        for _ in range(2):  # while it lasts, and when it is over
            for ask, option in QUESTIONS.values():
                with pytest.raises(UsageError, match=option):
                    ask(session)
            session.finish()


@pytest.mark.parametrize("kind", [*BACKENDS, pytest.param(Backend.TRACEPOINT, marks=pytest.mark.native)], ids=str)
def test_failures_are_told_of_their_own_accord(kind: Backend) -> None:
    with Session(Options(kind)) as session:
        run("sh", "-c", "(kill -BUS $(sh -c 'echo $PPID')); true")
        told = session.failures(10)
        assert eventually(lambda: sum(session.snapshot().failures.values()) == 1)
    assert [(failure.comm, failure.uid) for failure in told] == [("sh", 0)]
    assert sum(session.finish().failures.values()) == len(told) == 1
    assert {series.kind for series in session.finish().failures} == {Class.SENT}
