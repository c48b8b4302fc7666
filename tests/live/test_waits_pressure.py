"""Calls that wait since something runs short: space of a btrfs, the log of an xfs."""

from __future__ import annotations

import os
import threading
from functools import partial
from itertools import count

from tests.live.guest import eventually, run
from tests.live.slow_disk import Device, Disk, Waiter, hold
from tests.live.watched import Watched
from tracer.wait import Wait

PAGES = 97
_MIB = 1 << 20
#: Of devices: each backend has its own.
_NUMBERS = count()


def test_a_btrfs_that_has_to_make_space(watched: Watched) -> None:
    disk = Disk("btrfs", 160, name=f"tickets-{next(_NUMBERS)}", options="nodatasum")
    filler = disk.place / "filler"
    waiter = Waiter(disk.place / "file", PAGES)
    with filler.open("wb", buffering=0) as stream:
        for size in (_MIB, 4096):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                pass
        os.fsync(stream.fileno())
    run("sync", "-f", str(disk.place))

    def make_space() -> None:
        # What is deleted can be used again once a transaction is on the disk.
        filler.unlink()
        with disk.stopped():
            waiter.store(0)
            hold()

    watched.waits_for(Wait.SPACE, waiter, "btrfs", disk.place, make_space)
    waiter.end()
    run("umount", str(disk.place))


def test_an_xfs_whose_log_is_full(watched: Watched) -> None:
    number = next(_NUMBERS)
    log = Device(f"log-{number}", 16, delay_ms=70)
    make = ("--unsupported", "-m", "reflink=0", "-l", f"logdev={log.path},size=4m")
    disk = Disk("xfs", 320, name=f"logged-{number}", make=make, options=f"logdev={log.path}")
    waiter = Waiter(disk.place / "file", PAGES)
    made: list[int] = []
    over = threading.Event()

    def change() -> None:
        for one in count():
            if over.is_set():
                return
            (disk.place / f"{one}").touch()
            made.append(one)

    def fill() -> None:
        thread = threading.Thread(target=change)
        with log.stopped():
            thread.start()
            assert eventually(partial(_halts, made))
            over.set()
            waiter.store(0)
            hold()
        thread.join()

    watched.waits_for(Wait.JOURNAL, waiter, "xfs", disk.place, fill)
    waiter.end()
    run("umount", str(disk.place))


def _halts(made: list[int]) -> bool:
    """Whether no more are made."""
    before = len(made)
    hold(0.5)
    return before == len(made) > 0
