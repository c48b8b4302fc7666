"""Calls that wait, seen by their stacks: ``waits --stacks`` and ``--folded``, and the pane of ``top``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.asleep import rounds
from tests.live.guest import HANDLERS, ended, frozen, tracing
from tests.live.slow_disk import Waiter

FREEZE = "percpu_rwsem_wait"
#: More sleeps than a command makes from one look at the calls to the next.
A_LOOK = 10


@pytest.fixture
def waiter(mounts: dict[str, Path]) -> Iterator[Waiter]:
    with Waiter(mounts["ext4"] / "stacked", 7) as waiter:
        yield waiter


@pytest.mark.nightly
def test_the_stack_of_a_wait_is_seen_for_as_long_as_it_lasts(mounts: dict[str, Path], waiter: Waiter) -> None:
    place = mounts["ext4"]
    with tracing("waits", "--stacks", "--json", "--slower", "100ms", "--pid", str(waiter.pid)) as shown:
        with frozen(place):
            waiter.store(0)
            waiter.blocked()
            rounds(shown.pid, A_LOOK)
        took = waiter.took()
        found = json.loads(ended(shown))
    (seen,) = (one for one in found["stacks"] if FREEZE in one["stack"])
    assert (seen["reason"], seen["mountpoint"], seen["handler"]) == ("freeze", str(place), HANDLERS["ext4"])
    assert seen["stack"].index(FREEZE) < seen["stack"].index(HANDLERS["ext4"]) < seen["stack"].index("do_page_mkwrite")
    assert waiter.slept <= seen["total_ns"]
    assert sum(one["total_ns"] for one in found["stacks"]) <= took
    (longest,) = found["longest"]
    # The longest keeps who, on which file, and where.
    assert (longest["pid"], longest["file"]) == (waiter.pid, str(place / "stacked"))
    assert longest["stack"] == max(found["stacks"], key=lambda one: one["total_ns"])["stack"]
    assert sum(longest["parts_ns"].values()) == longest["latency_ns"]


@pytest.mark.nightly
def test_folded_stacks_are_lines_of_frames_and_microseconds(mounts: dict[str, Path], waiter: Waiter) -> None:
    place = mounts["ext4"]
    with tracing("waits", "--folded", "--pid", str(waiter.pid)) as shown:
        with frozen(place):
            waiter.store(0)
            waiter.blocked()
            rounds(shown.pid, A_LOOK)
        took = waiter.took()
        lines = [line.rsplit(" ", 1) for line in ended(shown).splitlines()]
    (us,) = (int(number) for frames, number in lines if FREEZE in frames.split(";"))
    assert waiter.slept // 1000 <= us <= took // 1000
    assert {(frames.split(";")[0], frames.split(";")[-1]) for frames, _ in lines} <= {
        (str(place), "freeze"),
        (str(place), "cpu"),
        (str(place), "other"),
    }


def test_stuck_has_the_call_for_as_long_as_it_lasts(mounts: dict[str, Path], waiter: Waiter) -> None:
    place = mounts["ext4"]
    with tracing("stuck", "--json", "-i", "500ms") as shown:
        assert shown.stdout is not None
        calls: list[dict[str, Any]] = []
        with frozen(place):
            waiter.store(5)
            while len(calls) < 3:
                calls += [one for one in json.loads(shown.stdout.readline())["stuck"] if one["pid"] == waiter.pid]
        took = waiter.took()
        ended(shown)
    assert {one["freeze"]["by"]["comm"] for one in calls} == {"fsfreeze"}
    ages = [one["age_ns"] for one in calls]
    assert ages == sorted(ages)
    assert 1_000_000_000 <= ages[0] < ages[-1] < took
    for one in calls:
        assert (one["age_is_at_least"], one["reason"], one["handler"]) == (False, "freeze", HANDLERS["ext4"])
        assert (one["mountpoint"], one["file"], one["offset"]) == (str(place), str(place / "stacked"), 5 * 4096)
        assert FREEZE in one["stack"]


@pytest.mark.nightly
def test_top_has_what_is_stuck(mounts: dict[str, Path], waiter: Waiter) -> None:
    place = mounts["ext4"]
    with tracing("top", "-i", "500ms", "--json", "--pid", str(waiter.pid)) as top:
        looks: list[list[dict[str, Any]]] = []

        def stuck() -> list[dict[str, Any]]:
            assert top.stdout is not None
            found: list[dict[str, Any]] = json.loads(top.stdout.readline())["stuck"]
            return found

        assert stuck() == []
        with frozen(place):
            waiter.store(3)
            while len(looks) < 2:
                looks += filter(None, [stuck()])
        took = waiter.took()
        while last := stuck():  # which may have been looked at before
            looks.append(last)
        ended(top)
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
