"""Calls that wait since something runs short: memory in a cgroup, space of a btrfs, the log of an xfs."""

from __future__ import annotations

import os
import threading
from functools import partial
from itertools import count
from pathlib import Path

from tests.live.guest import cgroup, eventually, inside, run
from tests.live.slow_disk import Device, Disk, Waiter, hold, write_out
from tests.live.watched import Watched, tell
from tracer.wait import Wait

PAGES = 97
_MIB = 1 << 20


def test_a_btrfs_that_has_to_make_space(watched: Watched) -> None:
    disk = Disk("btrfs", 160, name="tickets", options="nodatasum")
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
    log = Device("log", 16, delay_ms=70)
    make = ("--unsupported", "-m", "reflink=0", "-l", f"logdev={log.path},size=4m")
    disk = Disk("xfs", 320, name="logged", make=make, options=f"logdev={log.path}")
    waiter = Waiter(disk.place / "file", PAGES)
    made: list[int] = []
    over = threading.Event()

    def change() -> None:
        for number in count():
            if over.is_set():
                return
            (disk.place / f"{number}").touch()
            made.append(number)

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


def test_a_cgroup_that_is_short_of_memory(watched: Watched) -> None:
    disk = Disk("ext4", 96, name="short")
    path, dirty = disk.place / "file", disk.place / "dirty"
    path.write_bytes(bytes(PAGES * 4096))
    run("sync", "-f", str(disk.place))
    # Pages that are read have no buffers yet: the call allocates them.
    Path("/proc/sys/vm/drop_caches").write_text("3")
    with cgroup("short", memory_max=str(64 * _MIB)) as place:
        run(*inside(place, "dd", "if=/dev/zero", f"of={dirty}", "bs=1M", "count=8", "conv=fsync"))
        waiter = Waiter(path, PAGES, partial(inside, place, "choom", "-n", "-1000", "--"), locked=True)

        def press() -> None:
            with disk.stopped(), dirty.open("r+b", buffering=0) as stream:
                # What memory the cgroup could free is on its way to a disk that does not take it.
                stream.write(bytes(8 * _MIB))
                write_out(stream.fileno())
                Path("/proc/sys/vm/drop_caches").write_text("3")
                (place / "memory.max").write_text((place / "memory.current").read_text())
                waiter.store(0, PAGES)
                took.append(waiter.took())
                (place / "memory.max").write_text("max")

        took: list[int] = []
        counted, events = watched.counted(press)
        waiter.end()
    waits = {s.reason: t for s, t in counted.waits.items() if t.count and s.mountpoint == str(disk.place)}
    print(took, waits, waiter.busy, waiter.ready)
    for event in events:
        tell(Wait.RECLAIM, event, took[0], waiter, str(watched.session.backend))
        assert event.waits[Wait.RECLAIM] > event.latency_ns * 0.9
    assert events
    # Many pages fit into what is allocated at once: most calls need not wait.
    assert 1 <= waits[Wait.RECLAIM].count < PAGES / 4
    assert abs(waits[Wait.RECLAIM].ns - took[0]) < took[0] / 10
    assert sum(time.ns for time in waits.values()) - waits[Wait.RECLAIM].ns < took[0] / 20
    run("umount", str(disk.place))
