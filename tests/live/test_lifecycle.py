"""A tracer leaves nothing behind, however it ends, and two at once don't disturb each other."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.live.guest import (
    NO_LOSS,
    WORKLOAD,
    Backend,
    FaultPath,
    Filters,
    Options,
    bpf_state,
    calls,
    command,
    eventually,
    run,
    survived,
    workload,
)
from tests.live.load import storm
from tracer.kernel.preemption import preemptible
from tracer.model.hooks import Loss
from tracer.session import Session


def _started(backend: Backend) -> subprocess.Popen[bytes]:
    """A tracer that has attached: it prints its header then."""
    process = subprocess.Popen(
        command("trace", "--backend", backend), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"TIME")
    return process


def _descendants(pid: int) -> list[str]:
    return run("sh", "-c", f"pgrep -P {pid} || true").split()


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.nightly)]
)
@pytest.mark.usefixtures("clean_kernel")
def test_nothing_stays_after_a_signal(backend: Backend, number: signal.Signals) -> None:
    process = _started(backend)
    children = _descendants(process.pid)
    process.send_signal(number)
    code = process.wait(timeout=300)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    assert eventually(lambda: not any(Path("/proc", child).exists() for child in children))


@pytest.mark.usefixtures("clean_kernel")
def test_nothing_stays_after_a_kill_while_attaching(backend: Backend) -> None:
    before = bpf_state()[0]
    process = subprocess.Popen(
        command("trace", "--backend", backend), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert eventually(lambda: bpf_state()[0] != before)
    process.kill()
    process.wait()


@pytest.mark.usefixtures("clean_kernel")
def test_tracers_at_once_are_all_right(mounts: dict[str, Path]) -> None:
    only_ext4 = Filters(fs=("ext4",))
    with (
        Session(Options(backend=Backend.KPROBE, filters=only_ext4, failures=False)) as one,
        Session(Options(backend=Backend.FENTRY, filters=only_ext4, failures=False)) as two,
        Session(Options(backend=Backend.KPROBE, filters=only_ext4, failures=False)) as three,
    ):
        workload("first-write", mounts["ext4"] / "two-1", 41)
        first = one.finish()
        workload("first-write", mounts["ext4"] / "two-2", 43)
        second, third = two.finish(), three.finish()
    for name, backend, made, final in (
        ("the first to end", Backend.KPROBE, 41, first),
        ("the second", Backend.FENTRY, 41 + 43, second),
        ("the third", Backend.KPROBE, 41 + 43, third),
    ):
        survived(f"three tracers at once, {name}", backend, made, calls(final))
    assert calls(first) == 41
    assert calls(second) == calls(third) == 41 + 43
    for final in (first, second, third):
        assert final.lost == NO_LOSS


@pytest.mark.usefixtures("clean_kernel")
def test_a_tracer_that_comes_and_goes_in_a_storm_loses_nothing(exact: Backend | None, mounts: dict[str, Path]) -> None:
    path = mounts["ext4"] / "middle"
    threads = 3
    with Session(Options(filters=Filters(fs=("ext4",)), failures=False)) as whole:
        with storm(path, threads) as end:
            assert eventually(lambda: calls(whole.snapshot()) > 100)
            with Session(Options(backend=exact, filters=Filters(fs=("ext4",)), failures=False)) as part:
                opened = whole.snapshot()
                middle = part.snapshot()
                assert eventually(lambda: calls(part.snapshot()) - calls(middle) > 100)
                before_end = part.snapshot()
                closing = whole.snapshot()
                final = part.finish()
            made = end()
        total = whole.finish()
    # Where the kernel may preempt a bpf system call of a session, it skips kprobe programs on that CPU, and says so.
    missed, missed_by_part = total.lost[Loss.MISSED_PROBE], final.lost[Loss.MISSED_PROBE]
    assert preemptible() or missed == missed_by_part == 0
    # A page that is written back between fault and store faults once more, but not as a first write.
    assert made - missed <= calls(total, path=FaultPath.FIRST_WRITE) <= made
    # The two snapshots of a pair are taken one after the other: the outer pair sees at least what the inner one sees.
    assert 0 < calls(before_end) - calls(middle) <= calls(closing) - calls(opened) + missed
    assert calls(final) >= calls(before_end)
    # Faults that were running when it attached are no loss.
    assert final.lost[Loss.UNMATCHED_RETURN] <= missed_by_part
    assert final.lost[Loss.UNMATCHED_ENTRY] <= missed_by_part
    traces = dict.fromkeys((Loss.UNMATCHED_RETURN, Loss.UNMATCHED_ENTRY, Loss.MISSED_PROBE), 0)
    assert {**final.lost, **traces} == NO_LOSS


@pytest.mark.every
@pytest.mark.usefixtures("clean_kernel")
def test_the_command_counts_exactly_and_says_so_in_json(
    backend: Backend, mounts: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    writer = (WORKLOAD, "first-write", str(mounts["ext4"] / "count"), "59")
    done = subprocess.run(
        command("count", "--json", "-o", str(out), "--fs", "ext4", "--backend", backend, "--", *writer),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    assert [(call["path"], call["outcome"], call["latency"]["count"]) for call in record["calls"]] == [
        ("first_write", "writable", 59)
    ]
    assert set(record["lost"].values()) == {0}


@pytest.mark.every
def test_doctor_says_which_backend_works(mounts: dict[str, Path]) -> None:
    done = subprocess.run(command("doctor", "--json"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    # A preempted fentry program makes the kernel skip others.
    assert json.loads(done.stdout)["backend"] == ("kprobe" if preemptible() else "fentry")


@pytest.mark.nightly
def test_unknown_names_are_bad_usage(mounts: dict[str, Path]) -> None:
    for arguments, listed in ((("--fs", "ext5"), "ext4"), (("--handler", "ext4_page_mkwrit"), "ext4_page_mkwrite")):
        done = subprocess.run(command("count", *arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert listed in done.stderr
        assert "Traceback" not in done.stderr
