"""Calls that wait since something runs short: memory of a cgroup, space of a btrfs, the log of an xfs."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from tests.live.asleep import Asleep
from tests.live.guest import ROOT, cgroup, dirty_limits, eventually, inside, run
from tests.live.slow_disk import Device, Disk, Waiter
from tests.live.watched import Watched, on_cpu, tell
from tracer.latency.breakdown import CPU, parts_of
from tracer.model.waits import Wait

PAGES = 97
_MIB = 1 << 20
#: More than other sleeps take, such as those on the way to the one that is meant.
_LONG_NS = 1_000_000_000
#: Of devices: each backend has its own.
_NUMBERS = count()


def test_a_btrfs_that_has_to_make_space(watched: Watched) -> None:
    with Disk("btrfs", 160, name=f"tickets-{next(_NUMBERS)}", options="nodatasum") as disk:
        filler = disk.place / "filler"
        with Waiter(disk.place / "file", PAGES) as waiter:
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
                    waiter.blocked()

            watched.waits_for(Wait.SPACE, waiter, "btrfs", disk.place, make_space)


def test_an_xfs_whose_log_is_full(watched: Watched) -> None:
    number = next(_NUMBERS)
    with ExitStack() as stack:
        log = stack.enter_context(Device(f"log-{number}", 16, delay_ms=70))
        make = ("--unsupported", "-m", "reflink=0", "-l", f"logdev={log.path},size=4m")
        disk = stack.enter_context(Disk("xfs", 320, name=f"logged-{number}", make=make, options=f"logdev={log.path}"))
        with Waiter(disk.place / "file", PAGES) as waiter:
            over = threading.Event()

            def change() -> None:
                for one in count():
                    if over.is_set():
                        return
                    (disk.place / f"{one}").touch()

            def fill() -> None:
                thread = threading.Thread(target=change)
                with log.stopped():
                    thread.start()
                    assert eventually(lambda: thread.native_id is not None)
                    try:
                        # It goes on until the log is full.
                        assert Asleep(thread.native_id or 0).for_ns(_LONG_NS, over=lambda: not thread.is_alive())
                    finally:
                        over.set()
                    waiter.store(0)
                    waiter.blocked()
                thread.join()

            watched.waits_for(Wait.JOURNAL, waiter, "xfs", disk.place, fill)


@pytest.mark.nightly
def test_a_cgroup_that_is_short_of_memory(watched: Watched) -> None:
    # What a CPU has in stock may do for all pages.
    assert any(_reclaims(watched) for _ in range(5))


class _NoCallWaitsError(Exception):
    """Nobody waits for memory in a call."""


def _reclaims(watched: Watched) -> bool:
    """Whether a call was made to wait for memory; it was told of then as it should be."""
    number, pages = next(_NUMBERS), 797
    with (
        Disk("ext4", 96, name=f"short-{number}", make=("-b", "1024")) as disk,
        _swap(f"swap-{number}") as swap,
        cgroup(f"short-{number}", memory_max=str(12 * _MIB)) as place,
        # Of a cgroup that is full few pages may be dirty: nearly nobody is throttled.
        dirty_limits(dirty_ratio=100, dirty_background_ratio=99),
    ):
        taken = ROOT / "taken"
        taken.write_bytes(b"x" * 16 * _MIB)
        path = disk.place / "file"
        path.write_bytes(bytes(pages * 4096))
        run("sync", "-f", str(disk.place))
        # Pages that are read are the cgroup's, and have no buffers yet: the call allocates them on its account.
        Path("/proc/sys/vm/drop_caches").write_text("3")
        # What a CPU has in stock for the cgroup is a reserve: both are to use the same.
        within = partial(inside, place, "taskset", "-c", "0")
        with Waiter(path, pages, partial(within, "choom", "-n", "-1000", "--"), locked=True) as waiter:
            waiter.store(0)
            waiter.took()
            taker: list[subprocess.Popen[bytes]] = []
            page = 0

            def press() -> None:
                nonlocal page
                line = within("dd", f"if={taken}", "of=/dev/null", f"bs={16 * _MIB}", "count=1", "status=none")
                with swap.stopped():
                    # It takes what there is, and waits for the swap to take some of it.
                    taker.append(subprocess.Popen(line))
                    assert eventually(lambda: taker[0].poll() is not None or _is_dd(taker[0].pid))
                    asleep = Asleep(taker[0].pid)
                    # Reclaim sleeps again and again.
                    if not asleep.for_ns(_LONG_NS, over=lambda: taker[0].poll() is not None, at_a_stretch=False):
                        raise _NoCallWaitsError
                    for number in range(1, pages):
                        waiter.store(page := number)
                        if waiter.blocks(at_a_stretch=False):
                            if _may_be_in_call(waiter.pid):
                                return
                            if not waiter.stored(3):  # what is to be written may need memory, too
                                break
                        waiter.took()
                    raise _NoCallWaitsError

            try:
                counted, events, took = watched.waited(waiter, press)
            except _NoCallWaitsError:
                return False
            finally:
                assert taker[0].wait(300) == 0
    # What waited for memory may have been the fault itself.
    slow = [event for event in events if (event.pid, event.offset) == (waiter.pid, page * 4096)]
    if not any(waiter.slept <= event.waits.get(Wait.RECLAIM, 0) for event in slow):
        return False
    event = max(slow, key=lambda event: event.waits.get(Wait.RECLAIM, 0))  # it may be written back, and ask again
    tell(Wait.RECLAIM, event.fstype, parts_of(event), took, waiter, watched.session)
    waits = {series.reason: time for series, time in counted.waits.items() if series.mountpoint == str(disk.place)}
    assert waits[Wait.RECLAIM].ns >= event.waits[Wait.RECLAIM] - 1
    assert sum(event.waits.values()) <= event.latency_ns <= took
    on_cpu(parts_of(event)[CPU], waiter)
    return True


def _may_be_in_call(pid: int) -> bool:
    """Whether a task that waits is in a call, as far as its stack says: in 5.10 it ends where a return probe is."""
    # It has none while it runs.
    stack = next(filter(None, (Path(f"/proc/{pid}/stack").read_text() for _ in range(1000))), "")
    return "ext4_page_mkwrite" in stack or "asm_exc_page_fault" not in stack


@contextmanager
def _swap(name: str) -> Iterator[Device]:
    """Swap on a device that can be stopped. It takes four pages at a time: whoever brings a fifth waits."""
    with Device(name, 64) as device:
        loop = run("losetup", "--find", "--show", "--direct-io=on", str(device.path)).strip()
        queue = Path("/sys/block", Path(loop).name, "queue")
        for setting, value in (("scheduler", "none"), ("nr_requests", "4"), ("max_sectors_kb", "4")):
            (queue / setting).write_text(value)
        run("mkswap", loop)
        run("swapon", loop)
        try:
            yield device
        finally:
            run("swapoff", loop)
            run("losetup", "--detach", loop)


def _is_dd(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "dd\n"
