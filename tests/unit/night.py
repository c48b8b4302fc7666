"""A night of made-up work, as a record: two hours of calls, a hole, failures, a slow call, and names that try more."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from failure_samples import FULL, refused
from look_back import NASTY
from recorded import write
from samples import event, series, snapshot

from tracer.diagnosis.diagnose import diagnose
from tracer.diagnosis.explainer import Explained
from tracer.host.space import Space
from tracer.latency.stuck import StuckCall
from tracer.mappings.risk import LimitedFilesystem
from tracer.model.calls import Outcome
from tracer.model.failures import Class, FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.host_state import HostState
from tracer.model.waits import InFlight, Wait, WaitSeries, WaitTime
from tracer.record.events import slow_frame, stuck_frame
from tracer.record.minutes import Minute, frame
from tracer.record.reports import failure_frame

MINUTE = 60 * 10**9
#: 2026-12-01 02:00 UTC.
START = 1_796_090_400 * 10**9
MINUTES = 120
#: Nothing is recorded of these.
HOLE = range(30, 34)
CALLS = 50
#: The minutes in which the database was refused a page.
FAILED = {72: 1, 73: 3, 100: 1}
DIRECTORY = f"/srv/customers/acme/{NASTY}"
DATABASE = f"{DIRECTORY}/orders and more.db"
COMMAND = ("/usr/bin/database", "--password=hunter2", "/srv/customers/acme/orders and more.db")
STATE = HostState(space=FULL, cgroup="/system.slice/db", mountpoint=DIRECTORY)


def victim(number: int) -> Explained:
    """The failure of a minute."""
    failure = refused(
        28, time_ns=START + number * MINUTE + 12 * 10**9, pid=4000 + number, comm="database", process_comm="database",
        file=DATABASE, mountpoint=DIRECTORY, command=COMMAND,
    )  # fmt: skip
    return Explained(failure, STATE, diagnose(failure, STATE))


def minute(number: int) -> Minute:
    """Calls of some microseconds; for ten minutes they wait for the journal, and are slow."""
    dice = random.Random(number)
    slow = 60 <= number < 70
    of = replace(series(DIRECTORY), who="")
    latencies = Histogram.of(*(int(dice.lognormvariate(14.0 if slow else 8.5, 1.2)) for _ in range(CALLS)))
    counts = replace(
        snapshot({of: latencies}, MINUTE),
        monotonic_ns=number * MINUTE,
        failures={FailureSeries("ext4", DIRECTORY, of.dev, Class.REFUSED, "ENOSPC"): FAILED.get(number, 0)},
        waits={
            WaitSeries("ext4", DIRECTORY, of.dev, of.handler, Wait.JOURNAL): WaitTime(
                9, 9_000_000 * (1 + 20 * slow), 9
            ),
            WaitSeries("ext4", DIRECTORY, of.dev, of.handler, Wait.LOCK): WaitTime(2, 4_000_000, 9),
        },
    )
    left = Space(4096, max(0, 72 - number) << 20, max(0, 80 - number) << 20, 1 << 30)
    space = {LimitedFilesystem("ext4", DIRECTORY, of.dev): left}
    return Minute(START + number * MINUTE, START + (number + 1) * MINUTE, counts, space)


def frames() -> list[dict[str, Any]]:
    """The frames of that night, in the order in which they are written."""
    waiting = InFlight(
        12 * 10**9, 4711, 4711, "backup", "ext4", DIRECTORY, 1, 7, DATABASE, "ext4_page_mkwrite", 0, None
    )
    found: list[dict[str, Any]] = []
    for number in range(MINUTES):
        if number in HOLE:
            continue
        ends = START + (number + 1) * MINUTE
        if number in FAILED:
            found.append(failure_frame(victim(number)))
        if number == 64:
            call = replace(event(DATABASE, "database", Outcome.WRITABLE), time_ns=ends - 10**9, latency_ns=812_000_000)
            found.append(slow_frame(replace(call, waits={Wait.JOURNAL: 800_000_000})))
            found.append(stuck_frame([StuckCall(waiting, False, "freeze", ("percpu_rwsem_wait",))], ends - 10**9))
        found.append(frame(minute(number)))
    return found


def record(place: Path) -> Path:
    """Write it to a directory."""
    write(place, frames())
    return place
