"""Calls that wait, seen by their stacks: ``waits --stacks`` and ``--folded``, and the pane of ``top``."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.guest import HANDLERS, bpf_state, frozen, running, traces
from tests.live.slow_disk import Waiter, hold
from tests.live.watched import TIMED

pytestmark = [pytest.mark.front, TIMED]

FREEZE = "percpu_rwsem_wait"


@pytest.fixture
def waiter(mounts: dict[str, Path]) -> Iterator[Waiter]:
    with Waiter(mounts["ext4"] / "stacked", 7) as waiter:
        yield waiter


@contextmanager
def traced(*arguments: str) -> Iterator[Callable[[], str]]:
    """A command that traces, and what it printed at its end."""
    before = bpf_state()[0]
    with running(*arguments) as shown:
        traces(before)

        def ended() -> str:
            shown.send_signal(signal.SIGINT)
            output, errors = shown.communicate(timeout=120)
            assert shown.returncode == 0, errors
            return output

        yield ended


def test_the_stack_of_a_wait_is_seen_for_as_long_as_it_lasts(mounts: dict[str, Path], waiter: Waiter) -> None:
    place = mounts["ext4"]
    with traced("waits", "--stacks", "--json", "--slower", "100ms", "--pid", str(waiter.pid)) as ended:
        with frozen(place):
            waiter.store(0)
            hold(1.5)
        took = waiter.took()
        found = json.loads(ended())
    (seen,) = (one for one in found["stacks"] if FREEZE in one["stack"])
    assert (seen["reason"], seen["mountpoint"], seen["handler"]) == ("freeze", str(place), HANDLERS["ext4"])
    assert seen["stack"].index(FREEZE) < seen["stack"].index(HANDLERS["ext4"]) < seen["stack"].index("do_page_mkwrite")
    assert abs(seen["total_ns"] - took) < took / 10
    assert sum(one["total_ns"] for one in found["stacks"]) <= took
    (longest,) = found["longest"]
    # The longest keeps who, on which file, and where.
    assert (longest["pid"], longest["file"]) == (waiter.pid, str(place / "stacked"))
    assert longest["stack"] == seen["stack"]
    assert sum(longest["parts_ns"].values()) == longest["latency_ns"]


def test_folded_stacks_are_lines_of_frames_and_microseconds(mounts: dict[str, Path], waiter: Waiter) -> None:
    place = mounts["ext4"]
    with traced("waits", "--folded", "--pid", str(waiter.pid)) as ended:
        with frozen(place):
            waiter.store(0)
            hold(1.5)
        took = waiter.took()
        lines = [line.rsplit(" ", 1) for line in ended().splitlines()]
    (us,) = (int(number) for frames, number in lines if FREEZE in frames.split(";"))
    assert abs(us * 1000 - took) < took / 10
    assert {(frames.split(";")[0], frames.split(";")[-1]) for frames, _ in lines} <= {
        (str(place), "freeze"),
        (str(place), "cpu"),
        (str(place), "other"),
    }


def test_stuck_has_the_call_for_as_long_as_it_lasts(mounts: dict[str, Path], waiter: Waiter) -> None:
    place, before = mounts["ext4"], bpf_state()[0]
    with running("stuck", "--json", "-i", "500ms") as shown:
        assert shown.stdout is not None
        traces(before)
        calls: list[dict[str, Any]] = []
        with frozen(place):
            waiter.store(5)
            for _ in range(99):  # a busy machine looks when it can
                calls += [one for one in json.loads(shown.stdout.readline())["stuck"] if one["pid"] == waiter.pid]
                if len(calls) == 3:
                    break
        took = waiter.took()
        shown.send_signal(signal.SIGINT)
        _, errors = shown.communicate(timeout=120)
    assert shown.returncode == 0, errors
    assert len(calls) == 3
    ages = [one["age_ns"] for one in calls]
    assert ages == sorted(ages)
    assert 1_000_000_000 <= ages[0] < ages[-1] < took
    for one in calls:
        assert (one["age_is_at_least"], one["reason"], one["handler"]) == (False, "freeze", HANDLERS["ext4"])
        assert (one["mountpoint"], one["file"], one["offset"]) == (str(place), str(place / "stacked"), 5 * 4096)
        assert FREEZE in one["stack"]


def test_top_has_what_is_stuck(mounts: dict[str, Path], waiter: Waiter) -> None:
    place = mounts["ext4"]
    with running("top", "-i", "500ms", "--json", "--pid", str(waiter.pid)) as top:
        assert top.stdout is not None
        assert json.loads(top.stdout.readline())["stuck"] == []
        with frozen(place):
            waiter.store(3)
            hold(2.5)
        took = waiter.took()
        shown: list[list[dict[str, Any]]] = []
        for _ in range(99):  # a busy machine looks when it can
            shown.append(json.loads(top.stdout.readline())["stuck"])
            if any(shown) and not shown[-1]:
                break
        top.send_signal(signal.SIGINT)
        _, errors = top.communicate(timeout=120)
    assert top.returncode == 0, errors
    looks = [stuck for stuck in shown if stuck]
    assert looks
    assert shown[-1] == []
    ages = [one["age_ns"] for (one,) in looks]
    assert ages == sorted(ages)
    assert 1_000_000_000 <= ages[0] < ages[-1] < took
    for (one,) in looks:
        assert (one["pid"], one["reason"], one["file"], one["offset"]) == (
            waiter.pid,
            "freeze",
            str(place / "stacked"),
            3 * 4096,
        )
        assert FREEZE in one["stack"]
