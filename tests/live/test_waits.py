"""What calls wait for. The truth is how long the stores took, as the process that stores measures it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.live.asleep import Asleep
from tests.live.guest import HANDLERS, dirty_limits, eventually, frozen
from tests.live.slow_disk import Disk, Waiter, write_back
from tests.live.watched import SLOWER_NS, Watched, on_cpu, tell
from tracer.latency.breakdown import breakdowns
from tracer.latency.stuck import StuckCalls
from tracer.model.freezes import Freeze
from tracer.model.waits import Wait

pytestmark = pytest.mark.every

PAGES = 97


@pytest.fixture(scope="module")
def disks() -> dict[str, Disk]:
    """Disks that can be stopped."""
    return {"ext4": Disk("ext4", 96), "xfs": Disk("xfs", 320), "slow": Disk("xfs", 320, delay_ms=70)}


def test_a_call_that_began_before_there_were_hooks(disks: dict[str, Disk]) -> None:
    # First of all: in 5.10 a stack ends where another tracer's return probe is.
    disk = disks["ext4"]
    with Waiter(disk.place / "before", PAGES) as waiter:
        calls = StuckCalls()
        with frozen(disk.place):
            waiter.store(0)
            assert eventually(lambda: [one.call.tid for one in calls.look(None, 0)] == [waiter.pid])
            assert eventually(lambda: bool(calls.look(None, 400_000_000)))
            (one,) = calls.look(None, 400_000_000)
        waiter.took()
        assert (one.at_least, one.reason, one.call.handler) == (True, "freeze", HANDLERS["ext4"])


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_a_frozen_filesystem(watched: Watched, disks: dict[str, Disk], fstype: str) -> None:
    disk = disks[fstype]
    with Waiter(disk.place / "frozen", PAGES) as waiter:

        def freeze() -> None:
            with frozen(disk.place):
                waiter.store(0)
                waiter.blocked()
                first = frozen_by()
                assert first.lasts
                # Who comes second is refused.
                assert subprocess.run(["fsfreeze", "-f", disk.place], capture_output=True, check=False).returncode
                assert frozen_by().by == first.by  # the wall clock is read anew

        def frozen_by() -> Freeze:
            dev = disk.place.stat().st_dev
            number = os.major(dev) << 20 | os.minor(dev)
            found = watched.session.freezes()
            return found[max(one for one in found if one.dev == number)]

        watched.waits_for(Wait.FREEZE, waiter, fstype, disk.place, freeze)
        last = frozen_by()
        assert last.by is not None and last.thawed_by is not None
        assert (last.by.comm, last.thawed_by.comm) == ("fsfreeze", "fsfreeze")
        assert last.by.pid != last.thawed_by.pid
        assert last.thawed_ns - last.began_ns >= waiter.slept


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_a_page_that_is_written_back(watched: Watched, disks: dict[str, Disk], fstype: str) -> None:
    disk = disks[fstype]
    path = disk.place / "stable"
    with Waiter(path, PAGES) as waiter:

        def stop() -> None:
            with disk.stopped():
                write_back(path, 5)
                waiter.store(5)
                waiter.blocked()

        watched.waits_for(Wait.WRITEBACK, waiter, fstype, disk.place, stop)


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_a_lock_that_a_truncating_thread_holds(watched: Watched, disks: dict[str, Disk], fstype: str) -> None:
    disk = disks[fstype]
    path = disk.place / "truncated"
    with Waiter(path, PAGES) as waiter:
        thread = threading.Thread(target=os.truncate, args=(path, (PAGES - 1) * 4096))

        def truncate() -> None:
            with disk.stopped():
                # Truncation waits for the page's writeback, with the lock held.
                write_back(path, PAGES - 1)
                _blocked(thread)
                waiter.store(0)
                waiter.blocked()

        watched.waits_for(Wait.LOCK, waiter, fstype, disk.place, truncate)
        thread.join()


def test_a_journal_that_is_written(watched: Watched, disks: dict[str, Disk]) -> None:
    disk = disks["ext4"]
    path = disk.place / "journaled"
    with Waiter(path, PAGES) as waiter:

        def commit() -> None:
            # The inode is in the transaction that is being written out; the fault wants to change its times.
            thread = threading.Thread(target=_sync, args=(path,))
            os.sync()  # so that there is nothing but the transaction to be written
            path.chmod(0o600)
            with disk.stopped():
                _blocked(thread)  # by its transaction
                waiter.store(0)
                waiter.blocked()
            thread.join()

        watched.waits_for(Wait.JOURNAL, waiter, "ext4", disk.place, commit)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _blocked(thread: threading.Thread) -> None:
    """Start a thread, and wait until it waits for a disk."""
    thread.start()
    assert eventually(lambda: thread.native_id is not None)
    assert Asleep(thread.native_id or 0).for_ns(over=lambda: not thread.is_alive())


def test_dirtying_that_is_throttled(watched: Watched, disks: dict[str, Disk]) -> None:
    disk, pages = disks["slow"], 499
    with Waiter(disk.place / "throttled", pages) as waiter:
        with dirty_limits(dirty_background_bytes=4 * 4096, dirty_bytes=16 * 4096):
            counted, events, took = watched.waited(waiter, lambda: waiter.store(0, pages))
        (found,) = (one for one in breakdowns(counted) if one.mountpoint == str(disk.place))
        parts = {part.name: part.ns for part in found.parts}
        tell(Wait.THROTTLE, found.fstype, parts, took, waiter, watched.session)
        assert parts["throttle"] > 0
        # What the stores slept is told, and once.
        assert took - waiter.busy - waiter.ready - took // 100 <= sum(parts.values()) - parts["cpu"]
        assert sum(parts.values()) == found.ns <= took
        on_cpu(parts["cpu"], waiter)
        assert found.calls >= pages  # a page that is written back asks again
        told = [event for event in events if event.throttled_ns]
        assert {(event.pid, event.file) for event in told} <= {(waiter.pid, str(disk.place / "throttled"))}
        assert all(event.took_ns >= SLOWER_NS for event in told)
        (longest,) = (part.max_ns for part in found.parts if part.name == "throttle")
        assert longest < SLOWER_NS or longest in {event.throttled_ns for event in told}


def test_a_call_that_is_stuck(watched: Watched, disks: dict[str, Disk]) -> None:
    disk = disks["ext4"]
    with Waiter(disk.place / "stuck", PAGES) as waiter:
        with frozen(disk.place):
            began = time.monotonic_ns()
            waiter.store(7)
            calls = StuckCalls()
            assert eventually(lambda: bool(calls.look(watched.session, 900_000_000)))
            (one,) = calls.look(watched.session, 900_000_000)
            longest = time.monotonic_ns() - began
            snapshot = watched.session.snapshot()
        waiter.took()
        assert (one.at_least, one.reason, one.call.handler) == (False, "freeze", HANDLERS["ext4"])
        assert (one.call.pid, one.call.tid, one.call.comm) == (waiter.pid, waiter.pid, "waiter")
        assert (one.call.fstype, one.call.mountpoint) == ("ext4", str(disk.place))
        assert (one.call.file, one.call.offset) == (str(disk.place / "stuck"), 7 * 4096)
        assert one.call.inode == (disk.place / "stuck").stat().st_ino
        assert 900_000_000 <= one.call.age_ns <= longest
        assert "percpu_rwsem_wait" in one.stack
        assert snapshot.in_flight == 1
        assert snapshot.oldest_in_flight_ns >= one.call.age_ns
        assert eventually(lambda: watched.session.in_flight() == [])
