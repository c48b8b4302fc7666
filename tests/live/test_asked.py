"""A session tells failures unless that was declined; what it was not asked for, it refuses to tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.guest import (
    BACKENDS,
    NO_LOSS,
    Backend,
    Filters,
    Loss,
    Options,
    eventually,
    run,
    workload,
)
from tracer.errors import UsageError
from tracer.model.failures import Class
from tracer.session import Session

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
@pytest.mark.nightly
@pytest.mark.here
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


def test_of_what_nobody_fetches_the_last_is_kept_and_the_rest_counted_as_lost(
    mounts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.decode.unread.KEPT", 101)
    with Session(Options(slower_ns=1, filters=Filters(fs=("ext4",)), failures=False)) as session:
        workload("first-write", mounts["ext4"] / "unfetched", 257)
        assert session.snapshot().lost[Loss.EVENTS_FULL] == 257 - 101
        final = session.finish()
        events = session.events()
    assert [event.offset for event in events] == [n * (256 << 10) for n in range(257 - 101, 257)]
    assert final.lost == NO_LOSS | {Loss.EVENTS_FULL: 257 - 101}
