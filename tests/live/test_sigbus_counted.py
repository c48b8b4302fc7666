"""Refusals that come by the dozen are counted to the last, and each signal belongs to its fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.victims import BURST, CAUGHT, THREADS, Victims
from tracer.kernel.preemption import preemptible
from tracer.model.failures import Class, Disposition, FailureSource
from tracer.model.hooks import Backend, Loss

pytestmark = pytest.mark.newest


def test_each_caught_signal_belongs_to_its_own_fault(victims: Victims) -> None:
    met = victims.met["catch"]
    assert met.returncode == 0
    assert [failure.ordinal for failure in met.failures] == list(range(1, CAUGHT + 1))
    assert {failure.errno_name for failure in met.failures} == {"ENOSPC"}
    assert {failure.signal and failure.signal.disposition for failure in met.failures} == {Disposition.CAUGHT}
    assert {failure.address for failure in met.failures} == {met.address}


def _may_miss(victims: Victims) -> bool:
    """Whether the kernel may skip programs, and counts it: fentry programs that it preempts."""
    return victims.backend is Backend.FENTRY and preemptible()


def test_many_threads_at_once_are_counted_to_the_last(victims: Victims) -> None:
    met = victims.met["threads"]
    assert met.returncode == 0
    assert victims.seen == THREADS or (_may_miss(victims) and victims.seen < THREADS)
    # Where the refusal was missed, its signal comes alone.
    told = [failure for failure in met.failures if failure.source is FailureSource.PAGE_MKWRITE]
    assert 1 <= len(told) < THREADS
    assert len({failure.tid for failure in told}) == len(told)
    assert {failure.errno_name for failure in told} - ({""} if _may_miss(victims) else set()) == {"ENOSPC"}
    # Page and thread fit: each thread stores to a page of its own.
    assert [failure for failure in told if failure.address - failure.offset != met.address] == []


def test_a_burst_of_which_few_are_told_is_counted_to_the_last(victims: Victims, refusing: dict[str, Path]) -> None:
    assert len(victims.met["burst"].failures) < BURST
    ((series, number),) = victims.burst.items()
    assert (series.mountpoint, series.kind, series.errno) == (str(refusing["ext4"].parent), Class.REFUSED, "ENOSPC")
    assert number == BURST


def test_nothing_is_lost_and_every_hook_is_there(victims: Victims) -> None:
    assert victims.final is not None
    lost = {kind for kind, number in victims.final.lost.items() if number}
    if _may_miss(victims) and Loss.MISSED_PROBE in lost:
        # A program that is skipped leaves the other of its pair alone.
        lost -= {Loss.MISSED_PROBE, Loss.UNMATCHED_ENTRY, Loss.UNMATCHED_RETURN}
    assert lost == set()
    assert [f"{hook.name}: {hook.detail}" for hook in victims.final.hooks if not hook.attached] == []
