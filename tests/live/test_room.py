"""Processes come and go in numbers, and their series make room for others. No call is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.live.guest import WORKLOAD, Options, run
from tracer.export.prometheus.label import Who
from tracer.export.prometheus.ledger import Ledger
from tracer.model.hooks import Loss
from tracer.model.options import By, Filters
from tracer.session import Session

#: Odd primes: processes in a batch, batches, and the calls of each process.
BATCH, BATCHES, CALLS = 23, 11, 3
#: Series that have a front cell, on two CPUs, and others: fewer than processes.
FRONT, ROOM = 128, 64


@pytest.mark.nightly
@pytest.mark.parametrize("make_room", [True, False])
@pytest.mark.usefixtures("clean_kernel")
def test_series_of_processes_that_are_gone_make_room(mounts: dict[str, Path], make_room: bool) -> None:
    place = mounts["ext4"] / f"room-{make_room}"
    batch = f"for i in $(seq {BATCH}); do {WORKLOAD} first-write {place} {CALLS}; rm {place}; done"
    options = Options(
        filters=Filters(fs=("ext4",)), by=By.PROCESS, max_series=ROOM, make_room=make_room, failures=False
    )
    ledger, gone = Ledger(Who(By.PROCESS, 5), 1000), 0
    before: dict[Any, int] = {}
    with Session(options) as session:
        for number in range(1, BATCHES + 1):
            run("sh", "-c", batch)
            snapshot = session.snapshot()
            gone += sum(histogram.count for histogram in snapshot.gone.values())
            ledger.book(snapshot, {str(mounts["ext4"])})
            now = {(*source, *kind): h.count for source, kinds in ledger.calls() for kind, h in kinds.items()}
            if make_room:
                assert sum(now.values()) == number * BATCH * CALLS
                assert snapshot.lost[Loss.SERIES_FULL] == 0
                # Who is displaced from among the busiest is not shown any more.
                assert all(now[key] >= count for key, count in before.items() if key in now)
            before = now
        if make_room:
            assert gone >= (BATCH * BATCHES - FRONT) * CALLS
            assert len(session.snapshot().calls) <= FRONT
        else:
            assert gone == 0
            assert snapshot.lost[Loss.SERIES_FULL] > 0
