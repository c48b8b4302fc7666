"""What a tracer loses it says: a reader that is stopped, programs that are skipped, maps and disks that are full."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.live.guest import (
    NO_LOSS,
    SOME_RINGS,
    Backend,
    FaultPath,
    Filters,
    Loss,
    Options,
    Steps,
    calls,
    command,
    eventually,
    frozen,
    lost,
    run,
    survived,
    traces,
    truth,
    workload,
)
from tests.live.load import storm
from tracer.kernel.preemption import preemptible
from tracer.model.options import By
from tracer.session import Session

pytestmark = pytest.mark.nightly

EXT4 = Filters(fs=("ext4",))


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
