"""An hour of made-up work for the landing page, all that can be wrong, and names that try to be more than names."""

from __future__ import annotations

import errno
import random
from dataclasses import replace

from failure_samples import FULL, REFUSED, refused
from samples import HOOKS, series, snapshot

from tracer.diagnosis.classes import decide
from tracer.diagnosis.diagnose import diagnose
from tracer.diagnosis.explainer import Explained, Repeated
from tracer.export.http.groups import Group
from tracer.export.http.history import MINUTES, Past
from tracer.export.http.view import View
from tracer.latency.stuck import StuckCall
from tracer.mappings.cut import Cut
from tracer.mappings.risk import Demand, Limit, LimitedFilesystem, LimitKind, assess
from tracer.mappings.survey import Survey
from tracer.model.calls import FaultPath, Outcome
from tracer.model.failures import Actor, Fact, Failure
from tracer.model.freezes import Freeze
from tracer.model.histogram import Histogram
from tracer.model.hooks import Backend, Hook, Loss
from tracer.model.host_state import HostState
from tracer.model.snapshot import Snapshot
from tracer.model.waits import InFlight, Wait, WaitSeries, WaitTime

#: A mount point, a process and a file that would run if they were let.
NASTY = '"><script>document.title="owned"</script><img src=x onerror=document.title="owned">'

_MOUNTS = {"/": "ext4", "/var/lib/postgresql": "xfs", "/srv/data": "btrfs", f"/mnt/{NASTY}": "ext4"}


def hour() -> View:
    """The same hour every time: most calls take microseconds, some milliseconds, and for ten minutes all are slow."""
    dice = random.Random(7)
    minutes = [
        Histogram.of(*(int(dice.lognormvariate(12.5 if 30 <= minute < 40 else 8.5, 1.3)) for _ in range(400)))
        for minute in range(MINUTES)
    ]
    calls = {}
    for number, (mountpoint, fstype) in enumerate(_MOUNTS.items()):
        for path in (FaultPath.FIRST_WRITE, FaultPath.WRITE_PROTECT):
            one = replace(series(mountpoint, path=path), dev=number, fstype=fstype, handler=f"{fstype}_page_mkwrite")
            calls[one] = Histogram.of(*(int(dice.lognormvariate(8.5, 1.5)) for _ in range(700 // (number + 1))))
    refusals = replace(series("/srv/data", Outcome.SIGBUS), dev=2, fstype="btrfs", handler="btrfs_page_mkwrite")
    calls[refusals] = Histogram.of(90_000, 120_000)
    journal = WaitSeries("ext4", "/srv/data", 2, "ext4_page_mkwrite", Wait.JOURNAL)
    total = replace(
        snapshot(calls, elapsed_ns=3_700 * 10**9),
        lost={kind: 3 if kind is Loss.MISSED_PROBE else 0 for kind in Loss},
        in_flight=2,
        oldest_in_flight_ns=12_300_000_000,
        waits={
            replace(journal, dev=0, mountpoint="/"): WaitTime(31, 4_600_000, 410_000),
            replace(journal, reason=Wait.LOCK, fstype="btrfs", handler="btrfs_page_mkwrite"): WaitTime(2, 8_000, 5_000),
        },
        hooks=(*HOOKS, Hook("dirty", "fault_dirty_shared_page", Backend.FENTRY, False, NASTY)),
        notes=(f"A note of {NASTY}",),
    )
    past = Past(True, total, replace(total, elapsed_ns=10 * 10**9), tuple(minutes))
    return View(
        past,
        _groups(),
        _stuck(),
        ("Calls that began before.",),
        (_survey(), _FORECASTS),
        look_back="mkwrite sigbus --from /r",
    )


def explained(failure: Failure, **state: object) -> Explained:
    """A failure on a filesystem that is full."""
    host = HostState(space=FULL, cgroup="/system.slice/db.service", **state)  # type: ignore[arg-type]
    return Explained(failure, host, diagnose(failure, host))


def _groups() -> tuple[Group, ...]:
    full = explained(replace(refused(errno.ENOSPC), command=("postgres", "-D", "/srv")), container="0123456789ab")
    hostile = explained(refused(errno.EDQUOT, file=f"/srv/data/{NASTY}", comm="\x1b[31m" + NASTY[:11]))
    nameless = explained(decide(replace(REFUSED, file="", facts=Fact.NO_MEMORY)))
    victims = tuple(replace(full.failure, pid=pid, time_ns=full.failure.time_ns + 10**9) for pid in (7, 8))
    more = Repeated(full, 41, 42, 10**10, victims, processes=2)
    return Group(full, more), Group(hostile), Group(nameless)


def _stuck() -> tuple[StuckCall, ...]:
    place = {"fstype": "ext4", "mountpoint": "/srv", "dev": 1, "inode": 131, "handler": "ext4_page_mkwrite"}
    call = InFlight(
        42 * 10**9, 4242, 4243, NASTY[:15], file=f"/srv/{NASTY}", offset=0x3000, reason=Wait.FREEZE, **place
    )
    freeze = Freeze(10**18, Actor(1, 1, "fsfreeze"))
    return (StuckCall(call, False, "freeze", ("percpu_rwsem_wait", "ext4_page_mkwrite"), freeze=freeze),)


_PLACE = LimitedFilesystem("ext4", "/srv", 1)
_SPACE = Limit(_PLACE, LimitKind.SPACE, "", 1 << 20, 1 << 30)
_FORECASTS = {_SPACE.key: (4096.0, 256.0)}


def _survey() -> Survey:
    demands = (
        Demand(f"/srv/{NASTY}", False, 131, 1 << 30, ("postgres[4242]",), _PLACE, 1 << 29, 0, (_SPACE,)),
        Demand("/srv/wal", False, 132, 1 << 20, ("postgres[4242]",), _PLACE, 1 << 12, 0, (_SPACE,)),
    )
    cut = Cut(f"/srv/cut-{NASTY}", False, 133, 4096, 8192, ("reader[9]",), _PLACE)
    return Survey(1, demands, assess(demands), (), ("Processes of others.",), cut=(cut,))


def nothing() -> View:
    """A tracer that has just begun, and cannot read its counts."""
    empty: Snapshot = snapshot({})
    return View(Past(False, empty, empty.since(empty), (Histogram(),) * MINUTES), risk_unseen=("Not looked at.",))
