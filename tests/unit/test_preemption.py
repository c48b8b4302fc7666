"""That a thread is not preempted for a moment, where that is allowed."""

from __future__ import annotations

import os

import pytest

from tracer.kernel import preemption
from tracer.kernel.preemption import unpreempted


def _policies(monkeypatch: pytest.MonkeyPatch, now: int, preempts: bool = True) -> list[tuple[int, int]]:
    """What is asked for, policy and priority."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(preemption, "_preempts", lambda: preempts)
    monkeypatch.setattr(os, "sched_getscheduler", lambda _pid: now)
    monkeypatch.setattr(
        os, "sched_setscheduler", lambda _pid, policy, param: asked.append((policy, param.sched_priority))
    )
    return asked


def test_the_policy_is_real_time_for_the_moment_and_what_it_was_after(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _policies(monkeypatch, os.SCHED_OTHER)
    with pytest.raises(OSError, match="refused"), unpreempted():
        assert asked == [(os.SCHED_FIFO, 1)]
        raise OSError("refused")
    assert asked == [(os.SCHED_FIFO, 1), (os.SCHED_OTHER, 0)]


@pytest.mark.parametrize(("now", "preempts"), [(os.SCHED_OTHER, False), (os.SCHED_BATCH, True), (os.SCHED_RR, True)])
def test_nothing_is_asked_for_where_it_does_not_help(monkeypatch: pytest.MonkeyPatch, now: int, preempts: bool) -> None:
    asked = _policies(monkeypatch, now, preempts)
    with unpreempted():
        pass
    assert asked == []


def test_it_goes_on_where_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    _policies(monkeypatch, os.SCHED_OTHER)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    done = []
    with unpreempted():
        done.append(1)
    assert done == [1]
