"""Stacks of calls in flight, summed up over looks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest
from samples import event

from tracer.latency import stacks
from tracer.latency.stacks import Seen, Slow, StackSampler, WaitStack
from tracer.model.waits import InFlight

if TYPE_CHECKING:
    from tracer.session import Session

MS = 1_000_000
EVENT = replace(event(), latency_ns=50 * MS)
CALL = InFlight(
    5 * MS, EVENT.pid, EVENT.tid, EVENT.comm, EVENT.fstype, EVENT.mountpoint, EVENT.dev, EVENT.inode, EVENT.file,
    EVENT.handler, EVENT.offset, None,
)  # fmt: skip


class Looks:
    """What is in flight at each look, and where."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0
        self.calls: list[InFlight] = []
        self.stack: tuple[str, ...] = ()
        monkeypatch.setattr(stacks.time, "monotonic_ns", lambda: self.now)
        monkeypatch.setattr(stacks, "host_stack", lambda _pid, _tid: self.stack)
        self.sampler = StackSampler()

    def in_flight(self) -> list[InFlight]:
        return self.calls

    def look(self, after_ms: int, stack: tuple[str, ...], *calls: InFlight) -> None:
        self.now += after_ms * MS
        self.calls, self.stack = list(calls), stack
        self.sampler.look(cast("Session", self))


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def test_each_look_stands_for_the_time_since_the_one_before_and_no_more_than_the_call_has_lasted(looks: Looks) -> None:
    freeze = ("percpu_rwsem_wait", "do_page_mkwrite")
    looks.look(20, freeze, CALL)
    looks.look(30, freeze, replace(CALL, age_ns=35 * MS))
    looks.look(10, (), replace(CALL, age_ns=45 * MS), replace(CALL, age_ns=1 * MS, tid=7))
    found = looks.sampler.seen()
    assert [(one.where.reason, one.looks, one.ns) for one in found] == [("freeze", 2, 35 * MS), ("cpu", 2, 11 * MS)]
    assert found[0] == Seen(
        WaitStack(CALL.fstype, CALL.mountpoint, CALL.dev, CALL.handler, "freeze", freeze), 2, 35 * MS
    )


def test_a_slow_call_has_the_stack_that_it_was_in_for_most_of_its_time(looks: Looks) -> None:
    looks.look(20, ("short",), CALL)
    looks.look(30, ("long",), replace(CALL, age_ns=35 * MS))
    looks.look(10, ("other",), replace(CALL, tid=CALL.tid + 1))
    assert looks.sampler.slow(EVENT) == Slow(EVENT, ("long",))


def test_a_call_that_was_not_seen_or_not_lately_has_none(looks: Looks) -> None:
    assert looks.sampler.slow(EVENT) == Slow(EVENT)
    looks.look(20, ("long",), CALL)
    for _ in range(50):  # the task is preempted before its call can be told of
        looks.look(20, ())
    assert looks.sampler.slow(EVENT) == Slow(EVENT, ("long",))
    looks.look(20, ("long",), CALL)
    for _ in range(51):
        looks.look(20, ())
    assert looks.sampler.slow(EVENT) == Slow(EVENT)


def test_a_call_has_no_stack_of_an_earlier_one_for_the_same_page(looks: Looks) -> None:
    short = replace(EVENT, latency_ns=15 * MS)
    looks.look(20, ("long",), replace(CALL, age_ns=35 * MS))
    looks.look(20, ())
    assert looks.sampler.slow(short) == Slow(short)
    looks.look(20, ("long",), replace(CALL, age_ns=35 * MS))
    looks.look(20, ("short",), replace(CALL, age_ns=1 * MS))
    looks.look(20, ())
    assert looks.sampler.slow(EVENT) == Slow(EVENT, ("short",))
    assert looks.sampler.slow(EVENT) == Slow(EVENT)  # it has been told of
