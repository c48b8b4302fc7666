"""A recorded interval's counts are those of the session: JSON of what was read is JSON of what was counted."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import series, snapshot

from tracer.errors import UsageError
from tracer.export.json.records import exact, snapshot_dict, text
from tracer.model.asked import WAITS
from tracer.model.calls import FaultPath, Initiator, Outcome
from tracer.model.failures import Class, FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.hooks import Backend, Hook, Loss
from tracer.model.snapshot import Snapshot, Throttled, Tracepoints
from tracer.model.waits import Wait, WaitSeries, WaitTime
from tracer.record.minutes import Counted, Minute, frame, minute_of
from tracer.record.sums import Sums

#: A name that JSON, the terminal and the record might each take for something else.
HOSTILE = 'a\\x41\udcff\x1b["\n\\\\u0041'
FULL = FailureSeries("ext4", HOSTILE, 8 << 20 | 1, Class.REFUSED, "ENOSPC")
JOURNAL = WaitSeries("ext4", "/srv", 8 << 20 | 1, "ext4_page_mkwrite", Wait.JOURNAL)
#: What a session has counted after each of five readings.
STEPS = (0, 3, 3, 11, 29)


def counted(number: int, **members: object) -> Snapshot:
    """A session's counts when it has seen ``number`` calls of each kind; the slowest was the first."""
    slow = (90_000_000,) if number else ()
    calls = {
        replace(series(HOSTILE), source="/dev/sda1"): Histogram.of(*(1000 * (k + 1) for k in range(number)), *slow),
        series(path=FaultPath.WRITE_PROTECT, outcome=Outcome.SIGBUS): Histogram.of(*[4000] * (number // 3)),
        replace(series(), generation=2, who="/system.slice"): Histogram.of(*[7] * (number // 5)),
    }
    made = snapshot({key: histogram for key, histogram in calls.items() if histogram.count}, number * 10**9)
    return replace(
        made,
        wp_faults={outcome: number * place for place, outcome in enumerate(made.wp_faults)},
        lost={kind: number if kind is Loss.MISSED_PROBE else 0 for kind in Loss},
        failures={FULL: number} if number else {},
        waits={JOURNAL: WaitTime(number, 300 * number, 77)} if number else {},
        hooks=(*made.hooks, Hook("raced", "finish_fault", Backend.KPROBE, False, HOSTILE, denied=True)),
        notes=(HOSTILE,),
        **members,
    )


def through_the_record(minute: Minute) -> Minute:
    return minute_of(json.loads(json.dumps(frame(minute))))


def recorded(steps: list[Snapshot]) -> Snapshot:
    """The steps as minutes, written, read and added up, in both ways."""
    booked = Counted(steps[0])
    minutes, sums = [], Sums()
    for step in steps[1:]:
        booked.see(step)
        made = json.loads(json.dumps(frame(booked.take())))
        minutes.append(minute_of(made))
        sums.add(made)
    total = minutes[0]
    for minute in minutes[1:]:
        total += minute
    assert sums.minute() == total
    return total.counts


def test_minutes_add_up_to_what_was_counted_bucket_by_bucket() -> None:
    steps = [counted(number) for number in STEPS]
    live = steps[-1].since(steps[0])
    assert recorded(steps) == live
    assert snapshot_dict(recorded(steps)) == snapshot_dict(live)


def test_a_minute_is_the_same_when_it_was_written_and_read() -> None:
    minute = Minute(5, 7, counted(29).since(counted(3)))
    assert through_the_record(minute) == minute


def test_tracepoints_add_up() -> None:
    def step(number: int) -> Snapshot:
        throttled = {"8:0": Throttled(number, 10 * number, 4096 * number, HOSTILE)} if number else {}
        points = Tracepoints(number, {Initiator.USER: 2 * number, Initiator.KERNEL: 0}, throttled)
        return replace(counted(0), waits=WAITS, tracepoints=points, monotonic_ns=number)

    steps = [step(number) for number in STEPS]
    total, live = recorded(steps), steps[-1].since(steps[0])
    assert replace(total, waits={}) == replace(live, waits={})
    assert snapshot_dict(total) == snapshot_dict(live)


def test_what_was_not_asked_for_stays_unknown() -> None:
    total = recorded([replace(counted(number), waits=WAITS) for number in STEPS])
    with pytest.raises(UsageError, match="waits=True"):
        len(total.waits)


def test_what_makes_room_in_the_kernel_is_booked_once_and_what_comes_again_anew() -> None:
    """A cgroup with calls, failures and waits goes, and another of its name comes."""
    gone = counted(3)
    steps = [
        counted(0),
        counted(3, gone=gone.calls, gone_failures=gone.failures, gone_waits=gone.waits),
        counted(0),
        counted(3),
    ]
    booked = Counted(steps[0])
    for step in steps[1:]:
        booked.see(step)
    minute = booked.take().counts
    assert {key: histogram.buckets for key, histogram in minute.calls.items()} == {
        key: (histogram + histogram).buckets for key, histogram in gone.calls.items()
    }
    assert minute.failures == {FULL: 6}
    assert minute.waits == {JOURNAL: WaitTime(6, 1800, 77)}


def test_each_interval_is_told_once() -> None:
    booked = Counted(counted(0))
    booked.see(counted(3))
    assert booked.take().counts.failures == {FULL: 3}
    assert booked.take().counts.failures == {}
    booked.see(counted(5))
    minute = booked.take()
    assert (minute.counts.failures, minute.counts.elapsed_ns) == ({FULL: 2}, 2 * 10**9)


@given(st.text(st.characters(exclude_categories=[])))
def test_text_in_json_is_exact(raw: str) -> None:
    if not any("\ud800" <= char <= "\udfff" for char in raw):
        assert exact(text(raw)) == raw
    assert exact(text(raw.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape"))) == raw.encode(
        "utf-8", "surrogatepass"
    ).decode("utf-8", "surrogateescape")
