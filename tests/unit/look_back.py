"""An hour of made-up work for the landing page, and names that try to be more than names."""

from __future__ import annotations

import errno
import random
from dataclasses import replace

from failure_samples import REFUSED, refused
from samples import HOOKS, series, snapshot

from tracer.diagnosis.classes import decide
from tracer.export.http.history import MINUTES, View
from tracer.model.calls import FaultPath, Outcome
from tracer.model.failures import Fact
from tracer.model.histogram import Histogram
from tracer.model.hooks import Backend, Hook, Loss
from tracer.model.snapshot import Snapshot
from tracer.model.waits import Wait, WaitSeries, WaitTime

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
    failures = (
        refused(errno.ENOSPC),
        refused(errno.EDQUOT, file=f"/srv/data/{NASTY}", comm="\x1b[31m" + NASTY[:11]),
        decide(replace(REFUSED, file="", facts=Fact.NO_MEMORY)),
    )
    return View(True, total, replace(total, elapsed_ns=10 * 10**9), tuple(minutes), failures)


def nothing() -> View:
    """A tracer that has just begun, and cannot read its counts."""
    empty: Snapshot = snapshot({})
    return View(False, empty, empty.since(empty), (Histogram(),) * MINUTES, ())
