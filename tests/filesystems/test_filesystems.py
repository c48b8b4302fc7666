"""On each filesystem: what is told of a write to a mapping, exactly, and what a full disk does."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.filesystems import disks, remote
from tests.filesystems.counts import AGAIN, FIRST
from tests.filesystems.observe import Observation
from tests.filesystems.recipe import Full, Recipe, State, now
from tests.live.guest import run
from tracer.model.calls import FaultPath, Initiator, Outcome
from tracer.model.failures import Class
from tracer.model.filesystems import Refusal
from tracer.model.hooks import FUNCTION_BACKENDS, Backend
from tracer.model.options import Filters, Options
from tracer.session import Session

REFUSALS = {
    Full.FAULT: {Refusal.FAULT},
    Full.WRITEBACK: {Refusal.WRITEBACK},
    Full.LOST: {Refusal.WRITEBACK},
    Full.MMAP: {Refusal.MMAP},
    Full.GIVEN: {Refusal.NEVER, Refusal.WRITEBACK},
    Full.ENDLESS: {Refusal.NEVER},
}
PATHS = {FaultPath.FIRST_WRITE: FIRST, FaultPath.WRITE_PROTECT: AGAIN}
DAX_PATHS = {FaultPath.FIRST_WRITE: FaultPath.DAX_FAULT, FaultPath.WRITE_PROTECT: FaultPath.PFN_MKWRITE}


def each(applies: Callable[[Recipe], object]) -> pytest.MarkDecorator:
    """The recipes of which a test has something to say on the running kernel."""
    rows = [
        pytest.param(one, id=one.name, marks=() if one.short else (pytest.mark.matrix,))
        for one in (*disks.RECIPES, *remote.RECIPES)
        if applies(one)
    ]
    return pytest.mark.parametrize("recipe", rows, scope="module")


def mapped(recipe: Recipe) -> bool:
    """Whether its files can be mapped for writing."""
    return recipe.state in (State.SEEN, State.SILENT)


@each(lambda recipe: recipe.module)
def test_the_kernel_has_it_or_not_as_expected(recipe: Recipe) -> None:
    loads = subprocess.run(["modprobe", recipe.module], capture_output=True, check=False).returncode == 0
    names = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    assert (loads, recipe.fstype in names) == ((False, False) if recipe.state is State.ABSENT else (True, True))


@pytest.mark.parametrize("backend", FUNCTION_BACKENDS)
@pytest.mark.parametrize("path", PATHS)
@each(mapped)
def test_calls_are_counted_exactly(recipe: Recipe, observed: Observation, path: FaultPath, backend: Backend) -> None:
    told = {
        (one.handler, one.fstype, one.mountpoint, one.dev, one.path, one.outcome, one.initiator): calls.count
        for one, calls in observed.calls[path][backend].items()
    }
    if not (handler := now(recipe.handler)):
        assert not told
        return
    if recipe.dax:  # whose functions are called by reads, too
        asked = handler if path is FaultPath.FIRST_WRITE else recipe.dax
        key = (asked, recipe.fstype, observed.mountpoint, observed.dev, DAX_PATHS[path])
        assert told == {(*key, Outcome.WRITABLE, Initiator.USER): PATHS[path]}
        return
    common = (handler, recipe.fstype, observed.mountpoint, observed.dev)
    expected = {(*common, path, Outcome.WRITABLE, Initiator.USER): PATHS[path]}
    if recipe.repeats:
        again = observed.hits[path] - (FIRST if path is FaultPath.FIRST_WRITE else 0)
        expected |= {(*common, FaultPath.WRITE_PROTECT, Outcome.WRITABLE, Initiator.USER): again} if again else {}
    assert told == expected
    assert sum(told.values()) == observed.hits[path]


@each(lambda recipe: recipe.state is State.SEEN)
def test_latencies_are_sane(observed: Observation) -> None:
    for path in PATHS:
        for backend in FUNCTION_BACKENDS:
            assert observed.calls[path][backend]
            for calls in observed.calls[path][backend].values():
                assert 0 < calls.max_ns <= calls.sum_ns < observed.wall_ns[path]


@each(lambda recipe: recipe.state is State.REFUSED)
def test_mmap_refuses_what_is_shared_and_may_be_written(recipe: Recipe, observed: Observation) -> None:
    assert observed.refused == recipe.refused


@each(mapped)
def test_a_full_disk_refuses_when_expected(recipe: Recipe, observed: Observation) -> None:
    assert observed.full is now(recipe.full)
    assert observed.late == ("ENOSPC" if observed.full in (Full.WRITEBACK, Full.MMAP) else "")


@each(lambda recipe: mapped(recipe) and now(recipe.full) is Full.FAULT)
def test_sigbus_knows_the_errno_or_says_what_it_infers_it_from(recipe: Recipe, observed: Observation) -> None:
    assert observed.explained is not None
    failure, diagnosis = observed.explained.failure, observed.explained.diagnosis
    assert failure.errno == getattr(errno, now(recipe.errno), 0)
    expected = (now(recipe.errno), False) if now(recipe.errno) else (recipe.inferred, True)
    assert (diagnosis.errno, bool(diagnosis.inferred_from)) == expected
    assert diagnosis.kind in (Class.REFUSED, Class.TMPFS_FULL, Class.HUGETLB)
    assert Path(failure.file).name == "holes"


@each(lambda recipe: mapped(recipe) or recipe.state is State.REFUSED)
def test_doctor_says_what_was_seen(recipe: Recipe, observed: Observation) -> None:
    told = observed.told
    asked = {series.handler for backends in observed.calls.values() for calls in backends.values() for series in calls}
    if recipe.dax:
        assert asked and asked <= set(told["handlers"])
    else:
        assert set(told["handlers"]) == asked
    assert told["notifies"] == bool(asked)
    assert told["refusal"] in (REFUSALS[now(recipe.full)] if mapped(recipe) else {Refusal.MAPPING})
    assert told["errno_exact"] == bool(now(recipe.errno))
    assert (told["peer"] or "") == observed.peer
    assert (told["peer_pid"] is not None) == (told["fstype"].partition(".")[0] in ("fuse", "fuseblk"))


@each(lambda recipe: recipe.state is State.UNRUN)
def test_its_handler_can_be_hooked_though_it_is_not_run(recipe: Recipe) -> None:
    run("modprobe", recipe.module)
    handler = now(recipe.handler)
    with Session(Options(backend=Backend.KPROBE, filters=Filters(handlers=(handler,)), failures=False)) as session:
        assert handler in {hook.function for hook in session.hooks if hook.attached}
