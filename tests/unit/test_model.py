"""The vocabulary's arithmetic: intervals and groups of snapshots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import series, snapshot

from tracer.model.calls import FaultPath, Initiator, Outcome, Series, WpOutcome, device_name
from tracer.model.failures import Class, FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.hooks import Loss
from tracer.model.snapshot import Snapshot
from tracer.model.waits import Wait, WaitSeries, WaitTime

SERIES = st.builds(
    Series,
    fstype=st.sampled_from(["ext4", "xfs"]),
    mountpoint=st.sampled_from(["/", "/srv"]),
    dev=st.sampled_from([1, 2]),
    handler=st.just("a_page_mkwrite"),
    path=st.sampled_from(FaultPath),
    outcome=st.sampled_from(Outcome),
    initiator=st.sampled_from(Initiator),
)
HISTOGRAMS = st.lists(st.integers(0, 1 << 36), max_size=4).map(lambda ns: Histogram.of(*ns))
CALLS = st.dictionaries(SERIES, HISTOGRAMS, max_size=6)
COUNTS = st.integers(0, 1 << 40)
SNAPSHOTS = st.builds(
    Snapshot,
    monotonic_ns=st.integers(0, 1 << 50),
    elapsed_ns=st.integers(0, 1 << 40),
    calls=CALLS,
    wp_faults=st.fixed_dictionaries({kind: COUNTS for kind in WpOutcome}),
    lost=st.fixed_dictionaries({kind: COUNTS for kind in Loss}),
    in_flight=st.integers(0, 100),
    notes=st.just(("a note",)),
)

KEYS: Final[dict[str, Callable[[Series], Series]]] = {
    "nothing left out": lambda series: series,
    "initiator left out": lambda series: replace(series, initiator=Initiator.UNKNOWN),
    "all in one": lambda _: Series("", "", 0, "", FaultPath.FIRST_WRITE, Outcome.OTHER, Initiator.UNKNOWN),
}


def merged(one: Mapping[Series, Histogram], other: Mapping[Series, Histogram]) -> dict[Series, Histogram]:
    return {key: one.get(key, Histogram()) + other.get(key, Histogram()) for key in [*one, *other]}


def numbers(calls: Mapping[Series, Histogram]) -> dict[Series, tuple[tuple[int, ...], int]]:
    """What of each histogram can be added and taken away again, of those that have any."""
    return {series: (found.buckets, found.sum_ns) for series, found in calls.items() if found.count}


@given(SNAPSHOTS, SNAPSHOTS)
def test_an_interval_holds_what_came_after_its_start(earlier: Snapshot, more: Snapshot) -> None:
    later = replace(
        more,
        monotonic_ns=earlier.monotonic_ns + more.monotonic_ns,
        calls=merged(earlier.calls, more.calls),
        wp_faults={kind: earlier.wp_faults[kind] + more.wp_faults[kind] for kind in WpOutcome},
        lost={kind: earlier.lost[kind] + more.lost[kind] for kind in Loss},
    )
    delta = later.since(earlier)
    assert numbers(delta.calls) == numbers(more.calls)
    assert all(histogram.count for histogram in delta.calls.values())
    assert (delta.wp_faults, delta.lost) == (more.wp_faults, more.lost)
    assert delta.total_lost == later.total_lost - earlier.total_lost
    assert delta.elapsed_ns == more.monotonic_ns
    # What is true of a moment is that of the later one.
    assert (delta.monotonic_ns, delta.in_flight, delta.hooks, delta.notes) == (
        later.monotonic_ns, later.in_flight, later.hooks, later.notes,
    )  # fmt: skip


@given(SNAPSHOTS)
def test_nothing_happens_between_a_snapshot_and_itself(one: Snapshot) -> None:
    delta = one.since(one)
    assert (delta.calls, delta.elapsed_ns, delta.total_lost) == ({}, 0, 0)
    assert set(delta.wp_faults.values()) == {0}


def test_a_kind_that_the_earlier_snapshot_lacks_counts_from_zero() -> None:
    later = snapshot({}, lost=5)
    earlier = replace(later, wp_faults={}, lost={})
    delta = later.since(earlier)
    assert (delta.wp_faults, delta.lost) == (later.wp_faults, later.lost)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@given(calls=CALLS)
def test_groups_hold_every_call_once(key: Callable[[Series], Series], calls: dict[Series, Histogram]) -> None:
    grouped = snapshot(calls).grouped(key)
    assert set(grouped) == {key(series) for series in calls}
    for group, histogram in grouped.items():
        expected = sum((calls[series] for series in calls if key(series) == group), Histogram())
        assert histogram == expected


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@given(earlier=SNAPSHOTS, more=SNAPSHOTS)
def test_groups_of_an_interval_are_the_difference_of_groups(
    key: Callable[[Series], Series], earlier: Snapshot, more: Snapshot
) -> None:
    later = replace(more, calls=merged(earlier.calls, more.calls))
    before, after = earlier.grouped(key), later.grouped(key)
    apart = {group: found.since(before.get(group, Histogram())) for group, found in after.items()}
    assert numbers(later.since(earlier).grouped(key)) == numbers(apart)


def test_a_snapshot_is_left_as_it_was() -> None:
    one = Series("ext4", "/", 1, "h", FaultPath.FIRST_WRITE, Outcome.WRITABLE, Initiator.USER)
    other = replace(one, initiator=Initiator.KERNEL)
    taken = snapshot({one: Histogram.of(100), other: Histogram.of(200)})
    taken.grouped(KEYS["all in one"])
    taken.since(taken)
    assert taken.calls == {one: Histogram.of(100), other: Histogram.of(200)}


def test_what_counts_as_failed() -> None:
    assert [outcome.value for outcome in Outcome if outcome.failed] == ["sigbus", "oom", "hwpoison", "other"]


def test_paths_of_dax_are_those_without_a_page() -> None:
    assert [path for path in FaultPath if not path.dax] == [FaultPath.FIRST_WRITE, FaultPath.WRITE_PROTECT]


@pytest.mark.parametrize(
    ("dev", "name"), [(0, "0:0"), (8 << 20 | 1, "8:1"), (0xFFFFF, "0:1048575"), (4095 << 20 | 0xFFFFF, "4095:1048575")]
)
def test_a_device_is_called_by_the_kernels_numbers(dev: int, name: str) -> None:
    assert device_name(dev) == name


@given(st.lists(SERIES, max_size=5))
def test_series_have_an_order(series: list[Series]) -> None:
    # Output is sorted by series; Python refuses to compare what has none.
    assert sorted(sorted(series, reverse=True)) == sorted(series)


def test_a_filesystem_that_has_another_name_now_did_not_begin_anew() -> None:
    def named(mountpoint: str, source: str, number: int) -> Snapshot:
        calls = {replace(series(mountpoint), source=source): Histogram.of(*[1000] * number)}
        failures = {FailureSeries("ext4", mountpoint, 1, Class.REFUSED, "ENOSPC"): number}
        waits = {WaitSeries("ext4", mountpoint, 1, "ext4_page_mkwrite", Wait.JOURNAL): WaitTime(number, number)}
        return replace(snapshot(calls), failures=failures, waits=waits)

    found = named("/srv", "/dev/sda1", 9).since(named("", "", 7))
    assert [(key.mountpoint, histogram.count) for key, histogram in found.calls.items()] == [("/srv", 2)]
    assert list(found.failures.values()) == [2]
    assert list(found.waits.values()) == [WaitTime(2, 2)]
    assert named("/srv", "/dev/sda1", 9).since(named("", "", 9)).calls == {}


def test_what_has_the_same_names_is_taken_together_by_name() -> None:
    calls = {replace(series(), generation=generation): Histogram.of(*[5] * (generation + 1)) for generation in range(3)}
    failures = {FailureSeries("tmpfs", "/b", 45, Class.TMPFS_FULL, "ENOSPC", "", n): n + 1 for n in range(3)}
    waits = {WaitSeries("ext4", "/b", 45, "h", Wait.SPACE, n): WaitTime(1, n, n) for n in range(3)}
    counts = replace(snapshot(calls), failures=failures, waits=waits)
    assert {s.generation: h.count for s, h in counts.since(snapshot({})).calls.items()} == {0: 1, 1: 2, 2: 3}
    named = counts.by_name()
    assert [(s.generation, h.count) for s, h in named.calls.items()] == [(0, 6)]
    assert list(named.failures.values()) == [6]
    assert list(named.waits.values()) == [WaitTime(3, 3, 2)]


def test_the_next_filesystem_of_a_number_does_not_take_over_what_the_last_one_had() -> None:
    old = FailureSeries("tmpfs", "/b", 45, Class.TMPFS_FULL, "ENOSPC")
    new = replace(old, fstype="overlay", mountpoint="/c", kind=Class.MEDIA, generation=1)
    before = replace(snapshot({}), failures={old: 5})
    after = replace(snapshot({}), failures={old: 5, new: 2})
    assert after.since(before).failures == {new: 2}
    # The last one is not counted any more (Options.make_room), and had the errno that the next one has.
    alike = replace(new, kind=old.kind, errno=old.errno)
    assert replace(snapshot({}), failures={alike: 7}).since(before).failures == {alike: 7}
