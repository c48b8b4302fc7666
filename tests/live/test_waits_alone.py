"""What calls wait for, told by a session or a command of its own.

A trampoline that changes while a task sleeps below it loses the task's return for all who hooked it by fentry
(bpf_tramp_image_put, kernel/bpf/trampoline.c): no other session may watch meanwhile.
"""

from __future__ import annotations

import json

import pytest

from tests.live.guest import NO_LOSS, Backend, Options, dirty_limits, ended, eventually, frozen, lost, tracing
from tests.live.slow_disk import Disk, Waiter
from tests.live.watched import on_cpu
from tracer.model.waits import Wait
from tracer.session import Session

PAGES = 97


@pytest.fixture(scope="module")
def disk() -> Disk:
    return Disk("ext4", 96, name="alone")


@pytest.mark.every
def test_a_call_whose_return_was_missed_is_in_flight_no_more(disk: Disk, exact: Backend | None) -> None:
    with (
        Waiter(disk.place / "missed", PAGES) as waiter,
        Session(Options(backend=exact, waits=True, failures=False)) as session,
    ):
        with frozen(disk.place):
            waiter.store(5)
            assert eventually(lambda: session.snapshot().oldest_in_flight_ns > 1_000_000_000)
            during = session.snapshot()
            assert (during.in_flight, len(session.in_flight())) == (1, 1)
            assert during.oldest_in_flight_ns > 1_000_000_000
            session._tracer.release("do_page_mkwrite")
        waiter.took()
        assert eventually(lambda: session.snapshot().in_flight == 0)
        assert session.snapshot().oldest_in_flight_ns == 0
        assert session.in_flight() == []


def test_the_command_shows_what_was_waited_for(disk: Disk) -> None:
    with Waiter(disk.place / "shown", PAGES) as waiter:
        with tracing("waits", "--json", "--slower", "100ms", "--pid", str(waiter.pid)) as shown:
            with frozen(disk.place):
                waiter.store(0)
                waiter.blocked()
            took = waiter.took()
            found = json.loads(ended(shown))
        (of_handler,) = found["waits"]
        parts = {part["part"]: part["total_ns"] for part in of_handler["parts"]}
        assert sum(parts.values()) == of_handler["total_ns"]
        assert waiter.slept <= parts["freeze"] <= took
        (event,) = found["longest"]
        assert (event["pid"], event["file"]) == (waiter.pid, str(disk.place / "shown"))
        # What balance_dirty_pages takes comes after the call.
        within = {part: ns for part, ns in parts.items() if part != "throttle"}
        assert event["parts_ns"] == within
        assert sum(within.values()) == event["latency_ns"]


@pytest.mark.nightly
def test_trace_shows_the_parts_of_a_slow_call(disk: Disk) -> None:
    with Waiter(disk.place / "traced", PAGES) as waiter:
        with tracing("trace", "--json", "--slower", "100ms", "-n", "1", "--pid", str(waiter.pid)) as shown:
            with frozen(disk.place):
                waiter.store(9)
                waiter.blocked()
            took = waiter.took()
            output, errors = shown.communicate(timeout=600)
        assert shown.returncode == 0, errors
        (call,) = map(json.loads, output.splitlines())
        parts = call["parts_ns"]
        assert (call["pid"], call["file"], call["offset"]) == (waiter.pid, str(disk.place / "traced"), 9 * 4096)
        assert waiter.slept <= parts["freeze"]
        assert sum(parts.values()) == call["latency_ns"] <= took
        on_cpu(parts["cpu"], waiter)


@pytest.mark.newest
@pytest.mark.nightly
def test_each_throttled_store_is_told_with_its_file(exact: Backend | None) -> None:
    pages, slow = 499, Disk("xfs", 320, name=f"throttling-{exact}", delay_ms=70)
    path = slow.place / "dirtied"
    with (
        Waiter(path, pages) as waiter,
        Session(Options(backend=exact, slower_ns=1, waits=True, failures=False)) as session,
    ):
        with dirty_limits(dirty_background_bytes=4 * 4096, dirty_bytes=16 * 4096):
            waiter.store(0, pages)
            waiter.took()
        final = session.finish()
        told = [event for event in session.events() if event.throttled_ns]
    (counted,) = (
        time
        for series, time in final.waits.items()
        if (series.reason, series.mountpoint) == (Wait.THROTTLE, str(slow.place))
    )
    assert counted.count == len(told) > 0
    assert counted.ns == sum(event.throttled_ns for event in told)
    assert counted.max_ns == max(event.throttled_ns for event in told)
    # Each call was slower than 1 ns, and told of by itself before.
    assert {(event.pid, event.file, event.latency_ns) for event in told} == {(waiter.pid, str(path), 0)}
    assert {event.offset for event in told} <= {4096 * page for page in range(pages)}
    assert lost(final) == NO_LOSS
