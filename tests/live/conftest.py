"""One scenario for each backend: every workload under one session, so that a slow guest attaches once."""

from __future__ import annotations

import subprocess
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.live.guest import BACKENDS, HANDLERS, NO_LOSS, WORKLOAD, Backend, Options, lost, mount, workload
from tests.live.victims import refusing, victims
from tests.live.watched import SLOWER_NS, Watched
from tracer.kernel.preemption import preemptible
from tracer.model.failures import Failure
from tracer.model.snapshot import Snapshot
from tracer.session import Session

#: Fixtures of more than one file.
__all__ = ["refusing", "victims"]

#: Odd primes, so that nothing comes out right by accident.
FIRST, AGAIN, READ_INTO, REMOTE, OWN = 101, 53, 31, 37, 43


@dataclass
class Scenario:
    """What a session counted for each part of the workload."""

    backend: Backend
    parts: dict[str, Snapshot] = field(default_factory=dict)
    victim: subprocess.CompletedProcess[bytes] | None = None
    victim_pid: int = 0
    victim_inode: int = 0
    failures: list[Failure] = field(default_factory=list)
    final: Snapshot | None = None


@pytest.fixture(scope="session")
def mounts() -> dict[str, Path]:
    """A fresh filesystem of each kind."""
    return {fstype: mount(fstype) for fstype in HANDLERS}


def _chosen_first(chosen: Backend | None, other: Backend) -> list[object]:
    """The backend that a session chooses on this kernel; the other one is left to make test-all."""
    return [pytest.param(chosen, id=str(chosen)), pytest.param(other, id=str(other), marks=pytest.mark.nightly)]


_CHOSEN = (Backend.KPROBE, Backend.FENTRY) if preemptible() else (Backend.FENTRY, Backend.KPROBE)


@pytest.fixture(scope="session", params=_chosen_first(*_CHOSEN))
def backend(request: pytest.FixtureRequest) -> Backend:
    """The backend that a session chooses here, for what hangs little on it; each night the other one, too."""
    found = request.param
    assert isinstance(found, Backend)
    return found


@pytest.fixture(scope="session", params=BACKENDS, ids=str)
def both(request: pytest.FixtureRequest) -> Backend:
    """Both backends, one after the other: for counts, outcomes and losses."""
    found = request.param
    assert isinstance(found, Backend)
    return found


#: Where the kernel preempts fentry programs, a session hooks calls by kprobes, and do_wp_page by fentry.
_EXACT = _chosen_first(None, Backend.KPROBE) if preemptible() else list(BACKENDS)


@pytest.fixture(params=_EXACT, ids=str)
def exact(request: pytest.FixtureRequest) -> Backend | None:
    """The backends that miss nothing when many threads fault: where the kernel preempts fentry programs, not fentry."""
    found = request.param
    assert found is None or isinstance(found, Backend)
    return found


@pytest.fixture(scope="session")
def scenario(both: Backend, mounts: dict[str, Path]) -> Scenario:
    """Run everything under one session."""
    backend = both
    result = Scenario(backend)
    with Session(Options(backend=backend)) as session:
        assert session.backend is backend

        def part(name: str, what: str, *arguments: object) -> str:
            before = session.snapshot()
            output = workload(what, *arguments)
            result.parts[name] = session.snapshot().since(before)
            return output

        for fstype, place in mounts.items():
            part(f"first-write {fstype}", "first-write", place / f"first-{backend}", FIRST)
            part(f"write-after-read {fstype}", "write-after-read", place / f"again-{backend}", AGAIN)
        ext4 = mounts["ext4"]
        part("read-into", "read-into", ext4 / f"read-{backend}", READ_INTO)
        part("own-memory", "own-memory", ext4 / f"own-{backend}", OWN)
        part("remote-write", "remote-write", ext4 / f"remote-{backend}", REMOTE)
        session.failures()
        _fill_and_die(result, ext4)
        result.failures = session.failures(timeout_s=2.0)
        result.final = session.finish()
    return result


def _fill_and_die(result: Scenario, place: Path) -> None:
    """Leave no block free, then let a process write into a hole."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue
    path = place / "ledger \x1b[31m\n.db"
    try:
        victim = subprocess.Popen([WORKLOAD, "first-write", str(path), "7"], stdin=subprocess.DEVNULL)
        result.victim_pid = victim.pid
        victim.wait()
        result.victim = subprocess.CompletedProcess([], victim.returncode)
        result.victim_inode = path.stat().st_ino
    finally:
        # A full filesystem would fail every later test.
        filler.unlink()
        path.unlink(missing_ok=True)


@pytest.fixture(scope="module", params=_chosen_first(None if preemptible() else Backend.FENTRY, Backend.KPROBE))
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """One session for all tests of a module and backend."""
    with Session(Options(backend=request.param, slower_ns=SLOWER_NS, waits=True, failures=False)) as session:
        yield Watched(session)
        final = session.finish()
        assert lost(final) == NO_LOSS
        assert [hook for hook in final.hooks if not hook.attached] == []


@pytest.fixture
def clean_kernel() -> Iterator[None]:
    """Nothing of a tracer is in the kernel after the test that was not there before."""
    from tests.live.guest import bpf_state, eventually, run

    def is_clean() -> bool:
        # What an earlier test's tracer had may still be on its way out when this one begins.
        programs, maps, probes = bpf_state()
        return programs <= before[0] and maps <= before[1] and probes <= before[2]

    before = bpf_state()
    yield
    assert eventually(is_clean), f"left behind: {bpf_state()} instead of {before}\n{run('bpftool', 'prog', 'list')}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once why a test failed, and what was measured: a guest that dies later takes the summary with it."""
    if report.when == "call":
        for line in report.capstdout.splitlines():
            if line.startswith(("SURVIVED ", "WAITED ")):
                print(f"\n{line}", flush=True)
    if report.outcome not in ("passed", "skipped"):  # but failed, or rerun
        print(f"\n{report.nodeid} {report.when} {report.outcome}\n{report.longreprtext}", flush=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell the runner of what had to be measured again."""
    report = yield
    if report.when == "teardown" and (runs := getattr(item, "execution_count", 1)) > 1:
        report.user_properties.append(("runs", runs))
    return report
