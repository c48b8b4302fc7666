"""What comes and goes in numbers: processes, whose series make room for others, and filesystems. No call is lost."""

from __future__ import annotations

import mmap
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.live.guest import ROOT, WORKLOAD, Options, eventually, load_modules, run, survived
from tests.live.test_export import calls, counters, exporter, get, value
from tracer.export.ledger import Ledger
from tracer.export.who import Who
from tracer.model import By, Filters, Loss
from tracer.session import Session

#: Odd primes: processes in a batch, batches, and the calls of each process.
BATCH, BATCHES, CALLS = 23, 11, 3
#: Series that have a front cell, on two CPUs, and others: fewer than processes.
FRONT, ROOM = 128, 64
MOUNTS = 1009
#: Mounts, stores into a file's pages, and unmounts, again and again: programs of their own for each step take seconds.
CHURN = """
import ctypes, mmap, os, sys
device, place, times, calls = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(times):
    assert libc.mount(device.encode(), place.encode(), b"ext4", 0, None) == 0, ctypes.get_errno()
    file = os.open(place + "/f", os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, calls * mmap.PAGESIZE)
    with mmap.mmap(file, calls * mmap.PAGESIZE) as pages:
        for number in range(calls):
            pages[number * mmap.PAGESIZE] = 1
    os.close(file)
    os.unlink(place + "/f")
    assert libc.umount2(place.encode(), 0) == 0, ctypes.get_errno()
"""


@pytest.mark.parametrize("make_room", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("clean_kernel")
def test_series_of_processes_that_are_gone_make_room(mounts: dict[str, Path], make_room: bool) -> None:
    place = mounts["ext4"] / f"room-{make_room}"
    batch = f"for i in $(seq {BATCH}); do {WORKLOAD} first-write {place} {CALLS}; rm {place}; done"
    options = Options(filters=Filters(fs=("ext4",)), by=By.PROCESS, max_series=ROOM, make_room=make_room)
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


@pytest.mark.long
@pytest.mark.usefixtures("clean_kernel")
def test_a_thousand_filesystems_come_and_go_while_it_is_scraped() -> None:
    place = ROOT / "thousand"
    place.mkdir(parents=True)
    image = place.with_suffix(".img")
    with image.open("wb") as stream:
        stream.truncate(4 << 20)
    run("mkfs.ext4", "-q", "-O", "^has_journal", str(image))
    load_modules("loop", "ext4")
    device = run("losetup", "--find", "--show", str(image)).strip()
    churn = [sys.executable, "-S", "-c", CHURN, device, str(place), str(MOUNTS), str(CALLS)]
    with exporter() as (_, address):
        before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        began, scrapes = time.monotonic(), 0
        with subprocess.Popen(churn) as process:
            while process.poll() is None:
                scrapes += 1
                now = counters(get(address))
                assert {key for key, count in before.items() if now.get(key, 0) < count} == set()
                before = now
            assert process.returncode == 0
        print(f"{MOUNTS} mounts and {scrapes} scrapes in {time.monotonic() - began:.0f} s, {len(before)} counters")
        made = MOUNTS * CALLS
        exact = eventually(lambda: calls(get(address), place, outcome="writable") == made)
        counted = calls(get(address), place, outcome="writable")
        survived(f"{MOUNTS:,} mounts while it is scraped {scrapes} times", "export", made, counted)
        assert exact, get(address)
        dirtied = value(get(address), "mkwrite_dirtied_bytes_total", fstype="ext4", mountpoint=str(place))
        assert dirtied == MOUNTS * CALLS * mmap.PAGESIZE
        assert not [key for key, count in counters(get(address)).items() if key[0] == "mkwrite_lost_total" and count]
