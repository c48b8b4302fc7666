"""Faults that a tracer survives: each with what was made, what was counted, and what was lost and said so."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.growth import keeps_growing
from tests.live.guest import (
    NO_LOSS,
    SOME_RINGS,
    WORKLOAD,
    Backend,
    FaultPath,
    Filters,
    Loss,
    Options,
    Steps,
    calls,
    cgroup,
    command,
    eventually,
    frozen,
    inside,
    lost,
    mount,
    run,
    survived,
    traces,
    truth,
    workload,
)
from tracer.kernel.preemption import preemptible
from tracer.model import By
from tracer.probes import plan
from tracer.session import Session

pytestmark = pytest.mark.nightly

EXT4 = Filters(fs=("ext4",))
CPU1 = Path("/sys/devices/system/cpu/cpu1/online")


@contextmanager
def storm(path: Path, threads: int = 3, cgroup: Path | None = None) -> Iterator[Callable[[], int]]:
    """Stores at full rate; the function that it yields ends them and says how many first writes there were."""
    process = subprocess.Popen([WORKLOAD, "storm", str(path), "3600", str(threads)], stdout=subprocess.PIPE)

    def made() -> int:
        process.terminate()
        return int(process.communicate()[0])

    try:
        yield made
    finally:
        process.kill()
        process.wait()


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


def own_state() -> tuple[int, int, int]:
    """Descriptors, threads and children of this process."""
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        len(list(Path("/proc/self/task").iterdir())),
        len(Path("/proc/thread-self/children").read_text().split()),
    )


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


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


@pytest.mark.usefixtures("clean_kernel")
def test_a_stopped_reader_loses_events_to_the_last_one_said(exact: Backend | None, mounts: dict[str, Path]) -> None:
    """Nobody reads, as when the tracer is stopped or starved: the ring buffer fills, and what it had no room for is
    counted.
    """
    with Session(Options(backend=exact, filters=EXT4, slower_ns=0, failures=False)) as session:
        made = 0
        while made < SOME_RINGS:
            made += int(workload("storm", mounts["ext4"] / "stopped", 4, 3))
        received = session.events()
        while more := session.events(0.5):
            received += more
        final = session.finish()
    lost = final.lost[Loss.EVENTS_FULL]
    survived("ring buffer full, reader stopped (events)", exact or "auto", calls(final), len(received), lost)
    assert calls(final, path=FaultPath.FIRST_WRITE) == made
    assert lost > 0
    assert len(received) + lost == calls(final)


@pytest.mark.nightly
@pytest.mark.usefixtures("clean_kernel")
def test_a_tracer_that_was_stopped_for_a_minute_goes_on_and_says_what_it_lost(
    mounts: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "events"
    with out.open("wb") as stream:
        process = subprocess.Popen(
            command("trace", "--slower", "0", "--json", "--fs", "ext4"),
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
        )

        def told() -> int:
            return len(out.read_text().splitlines())

        traces(process)
        # A page that was written back meanwhile asks again: the storm knows of first writes only.
        with truth("do_page_mkwrite") as entered, storm(mounts["ext4"] / "sigstop") as end:
            process.send_signal(signal.SIGSTOP)
            time.sleep(60)
            end()
            made = entered.hits()
        process.send_signal(signal.SIGCONT)
        assert eventually(lambda: told() > 0)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    received = told()
    print(said)
    survived("SIGSTOP of the tracer for a minute (events)", "auto", made, received, made - received)
    assert f"{made - received:,}" in said or str(made - received) in said


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


def test_what_a_preempted_program_keeps_from_being_counted_is_told(mounts: dict[str, Path]) -> None:
    """Fentry, forced where a kernel preempts its programs: each call that is not counted is a run that was skipped."""
    threads = 23
    made = counted = told = 0
    for _ in range(3):
        with Session(Options(backend=Backend.FENTRY, filters=EXT4, failures=False)) as session:
            steps = Steps("blocked", mounts["ext4"] / "preempted", threads, threads)
            steps.reach()
            before = session.snapshot()
            # Those whose entry is skipped never show in the session.
            with truth("do_page_mkwrite") as entered, frozen(mounts["ext4"]):
                steps.go()
                assert eventually(lambda: entered.hits() >= threads)
            steps.end()
            final = session.finish().since(before)
        made += threads
        counted += calls(final, path=FaultPath.WRITE_PROTECT)
        told += lost(final)[Loss.MISSED_PROBE]
        assert preemptible() or final.lost == NO_LOSS
    survived("fentry forced, calls that wait by the dozen", Backend.FENTRY, made, counted, told)
    assert 0 <= made - counted <= told


@pytest.mark.usefixtures("clean_kernel")
def test_a_full_map_of_series_counts_what_it_has_no_room_for(backend: Backend, mounts: dict[str, Path]) -> None:
    processes, each = 211, 3
    with Session(Options(backend=backend, filters=EXT4, by=By.PROCESS, max_series=7, failures=False)) as session:
        for number in range(processes):
            workload("first-write", mounts["ext4"] / f"series-{number % 5}", each)
        final = session.finish()
    lost = final.lost[Loss.SERIES_FULL]
    survived("more series than there is room for", backend, processes * each, calls(final), lost)
    assert lost > 0
    assert calls(final) + lost == processes * each


@pytest.mark.parametrize(
    "arguments",
    [
        ("count", "--json", "-o", "FULL/counts", "-d", "100ms"),
        ("count", "-o", "FULL/counts", "-d", "100ms"),
        ("maps", "--json"),
        ("export", "--once"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
@pytest.mark.usefixtures("clean_kernel")
def test_a_full_disk_under_the_output_is_said(arguments: tuple[str, ...]) -> None:
    full = Path("/tmp/live/full")
    if not full.exists():
        full.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "-o", "size=64k", "none", str(full))
        (full / "filler").write_bytes(bytes(64 << 10))
    with Path("/dev/full").open("w") as stdout:
        done = subprocess.run(
            command(*(argument.replace("FULL", str(full)) for argument in arguments)),
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=120,
        )
    said = "cannot be written: No space left on device" in done.stderr
    survived(f"full disk under the output of mkwrite {' '.join(arguments[:2])}", "auto", made=1, counted=int(said))
    assert (done.returncode, said) == (1, True), done.stderr
    assert "Traceback" not in done.stderr


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
