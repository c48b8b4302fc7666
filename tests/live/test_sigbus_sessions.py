"""Refusals under sessions of their own: a shutdown, seen or not, and a handler that is hooked itself."""

from __future__ import annotations

import signal
import subprocess
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from tests.live.bad_disk import BadDisk
from tests.live.guest import run, truth
from tests.live.refusals import OFFSET, REFUSALS, SIZE, VICTIM, Refusal, Stage, prepare
from tests.live.victims import refuse_now
from tracer.diagnosis.explainer import Explainer
from tracer.model.calls import Initiator
from tracer.model.failures import Class, Fact
from tracer.model.hooks import Backend
from tracer.model.options import Filters, Options
from tracer.probes.failures import _SHUTDOWN
from tracer.session import Session

SYMBOLS = Path("/proc/kallsyms")
pytestmark = pytest.mark.newest


def test_a_shutdown_that_was_seen_tells_the_errno_without_a_hook_on_each_call(backend: Backend) -> None:
    (refusal,) = (refusal for refusal in REFUSALS if refusal.name == "xfs-down")
    file = prepare(refusal, f"-seen-{backend}")
    with Session(Options(backend)) as session:
        met = Stage(session).victim("rewrite", file, SIZE, OFFSET, meanwhile=partial(refuse_now, refusal, file))
        final = session.finish()
    assert (met.explained.failure.errno, met.explained.diagnosis.errno) == (0, "EIO")
    assert "xfs_do_force_shutdown" in met.explained.diagnosis.inferred_from
    ((series, number),) = final.failures.items()
    assert (series.kind, series.errno, number) == (Class.REFUSED, "EIO", 1)


def test_a_shutdown_that_was_not_seen_is_told_by_what_cannot_be_opened(backend: Backend) -> None:
    (refusal,) = (refusal for refusal in REFUSALS if refusal.name == "xfs-down")
    file = prepare(refusal, f"-unseen-{backend}")
    arguments = ("rewrite", str(file), str(SIZE), str(OFFSET))
    process = subprocess.Popen([VICTIM, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    refusal.refuse(file.parent)
    with Session(Options(backend)) as session:
        process.communicate("\n", timeout=300)
        (failure,) = Stage(session).of(process.pid)
        explained = next(iter(Explainer(session.has_ended).explain([failure])))
    assert process.returncode == -signal.SIGBUS
    assert (failure.errno, explained.diagnosis.errno) == (0, "EIO")
    assert "shut down" in explained.diagnosis.inferred_from
    assert explained.state.shut_down
    assert explained.state.space is not None


@pytest.mark.nightly
def test_an_xfs_is_not_shut_down_since_one_before_it_was(backend: Backend) -> None:
    """One is shut down while it is unmounted, after all that tells of its end; the next one is where it was."""
    file = prepare(Refusal("xfs", "xfs", "ENOSPC", size=320), f"-next-{backend}")
    run("umount", str(file.parent))
    disk = BadDisk(f"ended-{backend}", "xfs", 320)
    with Session(Options(backend)) as session, ExitStack() as stack:
        shuts = [stack.enter_context(truth(name)) for name in _SHUTDOWN if f" {name}\t" in SYMBOLS.read_text()]
        stage = Stage(session)
        disk.fail()
        run("taskset", "-c", "0", "umount", str(disk.place))  # writes a record into the log, last of all
        assert any(shut.hits() for shut in shuts)
        image = str(file.parent.with_suffix(".img"))
        run("taskset", "-c", "0", "mount", "-o", "loop", image, str(file.parent))  # memory freed there is found there
        met = stage.victim("store", file, SIZE, OFFSET)
    (failure,) = met.failures
    assert (failure.errno_name, failure.facts & Fact.SHUT_DOWN) == ("ENOSPC", Fact.NONE)
    assert not met.explained.state.shut_down


def test_failures_of_a_handler_that_is_hooked_itself_are_whole(refusing: dict[str, Path]) -> None:
    """The handler sees other flags of the fault than do_page_mkwrite does."""
    options = Options(Backend.KPROBE, Filters(handlers=("ext4_page_mkwrite",)))
    with Session(options) as session:
        stage = Stage(session)
        met = stage.victim("store", refusing["ext4"], SIZE, OFFSET)
        called = stage.victim("read-from", refusing["ext4"], SIZE, OFFSET, "/dev/zero", 0)
        subprocess.run(
            [VICTIM, "store", refusing["tmpfs"], str(SIZE), str(OFFSET)], stdin=subprocess.DEVNULL, check=False
        )
        final = session.finish()
        assert session.failures() == []
    (failure,) = met.failures
    assert failure.signal is not None
    assert (failure.initiator, failure.errno_name, failure.syscall) == (Initiator.USER, "ENOSPC", -1)
    assert {(f.signal, f.initiator, f.syscall) for f in called.failures} == {(None, Initiator.UNKNOWN, 0)}
    assert {series.fstype for series in final.failures} == {"ext4"}
