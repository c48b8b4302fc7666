"""Calls that wait while a tracer comes and goes: what it counts of them, it tells apart, the first and the last."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.live.guest import HANDLERS, eventually, frozen
from tests.live.slow_disk import Disk, Waiter
from tracer.model.hooks import Backend
from tracer.model.options import Filters, Options
from tracer.model.waits import Wait
from tracer.session import Session

#: More than the tracer takes to come, in an emulated guest on a busy machine.
PAGES, STALL_NS = 1999, 100_000_000


@pytest.fixture(scope="module")
def disk() -> Disk:
    return Disk("ext4", 96, name="opening")


@pytest.mark.nightly
def test_no_call_is_counted_whose_waits_cannot_be_told(disk: Disk, backend: Backend) -> None:
    place = disk.place
    with Waiter(place / f"opening-{backend}", PAGES) as waiter:
        over, stalls = threading.Event(), []

        def stall(place: Path) -> None:
            for page in range(PAGES):
                if over.is_set():
                    break
                with frozen(place):
                    waiter.store(page)
                    waiter.blocked(STALL_NS)
                stalls.append(waiter.took())

        stalling = threading.Thread(target=stall, args=(place,))
        stalling.start()
        try:
            assert eventually(lambda: len(stalls) > 2)
            with Session(
                Options(backend=backend, waits=True, filters=Filters(pids=(waiter.pid,)), failures=False)
            ) as session:
                opened = len(stalls)
                assert eventually(lambda: len(stalls) > opened + 5)
                final = session.finish()
        finally:
            over.set()
            stalling.join()
    told = Counter[Wait]()
    for series, time in final.waits.items():
        told[series.reason] += time.ns
    (counted,) = {series.handler for series in final.calls}
    assert counted == HANDLERS["ext4"]
    # While hooks came and went, some of the calls were counted.
    made = sum(histogram.count for histogram in final.calls.values())
    assert made >= 5
    assert told[Wait.FREEZE] >= made * STALL_NS
    del told[Wait.THROTTLE]  # which comes after its call
    assert told.total() <= sum(histogram.sum_ns for histogram in final.calls.values())
