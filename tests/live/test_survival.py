"""Faults that a tracer survives: each with what was made and what was counted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.live.growth import keeps_growing, own_state, resident_kib
from tests.live.guest import (
    NO_LOSS,
    Backend,
    FaultPath,
    Filters,
    Options,
    Steps,
    calls,
    cgroup,
    eventually,
    frozen,
    inside,
    mount,
    run,
    survived,
    workload,
)
from tests.live.load import storm
from tracer.probes import plan
from tracer.session import Session

pytestmark = pytest.mark.nightly

EXT4 = Filters(fs=("ext4",))
CPU1 = Path("/sys/devices/system/cpu/cpu1/online")


def kill_at_random_moments(backend: Backend, times: int) -> None:
    """Kill a tracer that attaches, reads and detaches without end."""
    chance = random.Random(times)
    for _ in range(times):
        pid = os.fork()
        if not pid:
            try:
                while True:
                    with Session(Options(backend=backend, failures=False)) as session:
                        session.snapshot()
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.0, 2.0))
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.mark.usefixtures("clean_kernel")
def test_killed_at_random_moments_it_leaves_nothing(backend: Backend, mounts: dict[str, Path]) -> None:
    kill_at_random_moments(backend, 5)
    survived("kill -9 at random moments", backend, made=5, counted=5)


def come_and_go(backend: Backend, times: int, path: Path) -> None:
    """Attach and detach; nothing may be left, here or in the kernel, and each counts what was made meanwhile."""

    def once(number: int) -> int:
        with Session(Options(backend=backend, filters=EXT4, failures=False)) as session:
            if number % 5 == 0:
                workload("first-write", path, 11)
            return calls(session.finish())

    for number in range(2):  # what is allocated once
        once(number)
    state, counted, memory = own_state(), 0, [resident_kib()]
    for number in range(times):
        counted += once(number)
        memory.append(resident_kib())
    assert own_state() == state
    assert not keeps_growing(memory), memory
    made = 11 * -(-times // 5)
    survived(f"attached and detached {times} times", backend, made=made, counted=counted)
    assert counted == made


@pytest.mark.usefixtures("clean_kernel")
def test_attached_and_detached_often_it_leaves_nothing(backend: Backend, mounts: dict[str, Path]) -> None:
    come_and_go(backend, 6, mounts["ext4"] / "often")


@pytest.mark.parametrize("core", [True, False], ids=["core", "handlers"])
@pytest.mark.usefixtures("clean_kernel")
def test_a_module_that_goes_and_comes_back_is_traced_again(
    mounts: dict[str, Path], monkeypatch: pytest.MonkeyPatch, core: bool
) -> None:
    if not core:
        monkeypatch.setattr(plan, "CORE", "do_page_mkwrite_inlined")
    run("modprobe", "nilfs2")
    made = (11, 13, 17)
    with Session(Options(filters=Filters(), failures=False)) as session:
        for number in made:
            place = mount("nilfs2")
            session.snapshot()
            workload("first-write", place / "file", number)
            session.snapshot()
            run("umount", str(place))
            run("rmmod", "nilfs2")
            session.snapshot()
        final = session.finish()
    counted = calls(final, handler="nilfs_page_mkwrite", path=FaultPath.FIRST_WRITE)
    survived("filesystem module unloaded and loaded again", "core" if core else "handlers", sum(made), counted)
    assert counted == sum(made)
    assert final.lost == NO_LOSS


@pytest.mark.usefixtures("clean_kernel")
def test_cpus_that_go_and_come_back_lose_nothing(exact: Backend | None, mounts: dict[str, Path]) -> None:
    with (
        Session(Options(backend=exact, filters=EXT4, failures=False)) as session,
        storm(mounts["ext4"] / "hotplug") as end,
    ):
        for online in "0101":
            CPU1.write_text(online)
            _goes_on(session)
        made = end()
        final = session.finish()
    counted = calls(final, path=FaultPath.FIRST_WRITE)
    survived("CPU taken away and given back under load", exact or "auto", made, counted)
    assert counted == made > 100


def _goes_on(session: Session) -> None:
    """Wait until it has counted more calls."""
    before = calls(session.snapshot())
    assert eventually(lambda: calls(session.snapshot()) > before + 100)


def test_clock_steps_change_no_duration(exact: Backend | None, mounts: dict[str, Path]) -> None:
    """The wall clock jumps a day ahead and back while calls wait."""
    now = time.time()
    began = time.monotonic()
    threads = 23
    try:
        with Session(Options(backend=exact, filters=EXT4, slower_ns=0, failures=False)) as session:
            steps = Steps("blocked", mounts["ext4"] / "clock", threads, threads)
            steps.reach()
            session.events()
            before = session.snapshot()
            with frozen(mounts["ext4"]):
                steps.go()
                assert eventually(lambda: session.snapshot().in_flight == threads)
                time.clock_settime(time.CLOCK_REALTIME, now + 86400)
            steps.end()
            events = session.events(2.0)
            stepped = time.time()
            time.clock_settime(time.CLOCK_REALTIME, now - 86400)
            final = session.finish().since(before)
    finally:
        time.clock_settime(time.CLOCK_REALTIME, now + time.monotonic() - began)
    took = time.monotonic() - began
    slowest = max(histogram.max_ns for histogram in final.calls.values()) / 1e9
    counted = calls(final, path=FaultPath.WRITE_PROTECT)
    survived("wall clock set a day ahead and back", exact or "auto", threads, counted, final.total_lost)
    assert counted == threads
    assert 0 < slowest < took
    # An event is dated by the clock that is right when it is read.
    assert all(abs(event.time_ns / 1e9 - stepped) < took for event in events)
    assert len(events) >= threads


@pytest.mark.usefixtures("clean_kernel")
def test_a_fork_bomb_in_a_cgroup_disturbs_no_count(exact: Backend | None, mounts: dict[str, Path]) -> None:
    made = 211
    with (
        Session(Options(backend=exact, filters=EXT4, failures=False)) as session,
        cgroup("bomb", pids_max="40") as place,
    ):
        subprocess.Popen(inside(place, "sh", "-c", "f() { f | f & }; f; wait"), stderr=subprocess.DEVNULL)
        assert eventually(lambda: int((place / "pids.events").read_text().split()[1]) > 10)
        workload("first-write", mounts["ext4"] / "bomb", made)
        session.snapshot()
        final = session.finish()
    survived("fork bomb in a cgroup", exact or "auto", made, calls(final))
    assert calls(final, path=FaultPath.FIRST_WRITE) == made
