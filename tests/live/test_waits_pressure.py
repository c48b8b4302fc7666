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

from tests.live.guest import ROOT, cgroup, dirty_limits, eventually, inside, run
from tests.live.slow_disk import Device, Disk, Waiter, hold
from tests.live.watched import TIMED, Watched, tell
from tracer.breakdown import parts_of
from tracer.wait import Wait

pytestmark = TIMED

PAGES = 97
_MIB = 1 << 20
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
                    hold()

            watched.waits_for(Wait.SPACE, waiter, "btrfs", disk.place, make_space)


def test_an_xfs_whose_log_is_full(watched: Watched) -> None:
    number = next(_NUMBERS)
    with ExitStack() as stack:
        log = stack.enter_context(Device(f"log-{number}", 16, delay_ms=70))
        make = ("--unsupported", "-m", "reflink=0", "-l", f"logdev={log.path},size=4m")
        disk = stack.enter_context(Disk("xfs", 320, name=f"logged-{number}", make=make, options=f"logdev={log.path}"))
        with Waiter(disk.place / "file", PAGES) as waiter:
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
                    try:
                        assert eventually(partial(_halts, made))
                    finally:
                        over.set()
                    waiter.store(0)
                    hold()
                thread.join()

            watched.waits_for(Wait.JOURNAL, waiter, "xfs", disk.place, fill)


def _halts(made: list[int]) -> bool:
    """Whether no more are made."""
    before = len(made)
    hold(0.5)
    return before == len(made) > 0


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

            def press() -> None:
                line = within("dd", f"if={taken}", "of=/dev/null", f"bs={16 * _MIB}", "count=1", "status=none")
                with swap.stopped():
                    # It takes what there is, and waits for the swap to take some of it.
                    taker.append(subprocess.Popen(line))
                    assert eventually(lambda: _sleeps(taker[0].pid))
                    for page in range(1, pages):
                        if not _waits(waiter, page):
                            continue
                        if _may_be_in_call(waiter.pid):
                            hold()
                            return
                        if not waiter.stores(3):  # what is to be written may need memory, too
                            break
                        waiter.took()
                    raise _NoCallWaitsError

            try:
                counted, events, took = watched.waited(waiter, press)
            except _NoCallWaitsError:
                return False
            finally:
                assert taker[0].wait(300) == 0
    # What waited for memory may have been the fault itself, and a call before it slow for another reason.
    slow = [event for event in events if event.pid == waiter.pid and Wait.RECLAIM in event.waits]
    if not slow:
        return False
    event = max(slow, key=lambda event: event.latency_ns)  # others may have waited for less than _waits() asks for
    tell(Wait.RECLAIM, event.fstype, parts_of(event), took, waiter, watched.session)
    waits = {series.reason: time for series, time in counted.waits.items() if series.mountpoint == str(disk.place)}
    assert waits[Wait.RECLAIM].ns >= event.waits[Wait.RECLAIM] - 1
    assert event.latency_ns - event.waits[Wait.RECLAIM] < event.latency_ns / 20
    # Of a cgroup that is full few pages may be dirty, however many may be elsewhere: some of the stores are throttled.
    throttled = waits[Wait.THROTTLE].ns if Wait.THROTTLE in waits else 0
    assert event.latency_ns <= took < event.latency_ns + throttled + took / 10
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


def _waits(waiter: Waiter, page: int) -> bool:
    """Let it store to a page; whether that waits."""
    waiter.store(page)
    if waiter.stores():
        waiter.took()
        return False
    return True


def _sleeps(pid: int) -> bool:
    """Whether a process sleeps for half a second, and cannot be woken."""
    states = set()
    for _ in range(5):
        states.add(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0])
        hold(0.1)
    return states == {"D"}
