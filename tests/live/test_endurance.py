"""What has to be done very often to show: a thousand attachments, a hundred kills.

Most of a session's start is reading: the kernel's symbols, its types, the compiled objects. That is done once here, so
that what is repeated is what could leak or be torn: programs, maps, hooks, return probes and their janitor.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest

from tests.live.growth import keeps_growing, own_state, resident_kib
from tests.live.guest import (
    BACKENDS,
    Backend,
    Filters,
    Options,
    calls,
    survived,
    workload,
)
from tracer import session as sessions
from tracer.kernel.btf import Btf
from tracer.kernel.symbols import Symbols
from tracer.model.snapshot import Snapshot
from tracer.probes import plan, tracepoints
from tracer.probes.build import build
from tracer.probes.source import source
from tracer.session import Session

pytestmark = pytest.mark.nightly

TIMES, KILLS = 1000, 100


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a session reads at its start, read before."""
    symbols = Symbols([plan.CORE])
    built, counts = cache(build), cache(tracepoints.counts_source)
    with Btf() as btf:
        shared = cache(partial(source, btf))
        monkeypatch.setattr(sessions, "Symbols", lambda names: symbols)
        for module in (plan, tracepoints):
            monkeypatch.setattr(module, "Btf", lambda: nullcontext(btf))
            monkeypatch.setattr(module, "source", lambda _, *choice, **more: shared(*choice, **more))
            monkeypatch.setattr(module, "build", built)
        monkeypatch.setattr(tracepoints, "counts_source", counts)
        yield


@dataclass(frozen=True)
class Work:
    """What sessions of a backend are to count."""

    backend: Backend
    file: Path | None

    @property
    def options(self) -> Options:
        return Options(self.backend, failures=self.file is None, filters=Filters(fs=("ext4",) if self.file else ()))

    @property
    def each(self) -> int:
        return 11 if self.file else 1

    def once(self, number: int) -> int:
        """One session; what it counted of the work, which every fifth one has."""
        died = 0
        with Session(self.options) as session:
            if number % 5 == 0 and self.file:
                workload("first-write", self.file, self.each)
            elif number % 5 == 0:
                process = subprocess.Popen(["sh", "-c", "kill -BUS $$"])
                assert process.wait() == -signal.SIGBUS
                died = process.pid
            final = session.finish()
            return calls(final) if self.file else sum(failure.pid == died for failure in session.failures())


@pytest.fixture(params=[*BACKENDS, pytest.param(Backend.TRACEPOINT, marks=pytest.mark.native)], ids=str)
def work(request: pytest.FixtureRequest, warm: None) -> Work:
    """Stores for those that see calls, signals for tracepoints, which are also tested on this machine."""
    if request.param is Backend.TRACEPOINT:
        return Work(request.param, None)
    return Work(request.param, request.getfixturevalue("mounts")["ext4"] / "often")


def kernel_kib() -> int:
    """Memory of the kernel's own in which programs and maps lie."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in ("Percpu", "VmallocUsed", "SUnreclaim"))


@pytest.mark.usefixtures("clean_kernel")
def test_attached_and_detached_a_thousand_times_it_leaves_nothing(work: Work) -> None:
    for number in range(20):  # what is allocated once
        work.once(number)
    state = own_state()
    began = time.monotonic()
    counted, tracer, kernel = 0, [resident_kib()], [kernel_kib()]
    for number in range(TIMES):
        counted += work.once(number)
        tracer.append(resident_kib())
        kernel.append(kernel_kib())
    took = time.monotonic() - began
    print(f"{TIMES} times in {took:.0f} s, KiB: tracer {tracer[0]} to {tracer[-1]}, kernel {kernel[0]} to {kernel[-1]}")
    made = work.each * -(-TIMES // 5)
    survived(f"attached and detached {TIMES:,} times", work.backend, made=made, counted=counted)
    assert counted == made
    assert own_state() == state
    assert not keeps_growing(tracer)
    # Here, others may need ever more of the kernel.
    assert work.file is None or not keeps_growing(kernel)


def holds_programs(pid: int) -> bool:
    """Whether a process has BPF programs open, and so is attaching, attached or detaching."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if str(entry.readlink()) == "anon_inode:bpf-prog":
                return True
    return False


def reading(options: Options) -> Snapshot:
    """Attach, read, detach, again and again; never returns."""
    while True:
        with Session(options) as session:
            session.snapshot()


@pytest.mark.usefixtures("clean_kernel")
def test_killed_at_a_hundred_random_moments_it_leaves_nothing(work: Work) -> None:
    """Its life is over in a few seconds and begins again: a kill meets every part of it, attached or not."""
    began = time.monotonic()
    work.once(1)
    life = time.monotonic() - began
    chance = random.Random(KILLS)
    holding = 0
    for _ in range(KILLS):
        pid = os.fork()
        if not pid:
            try:
                reading(work.options)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.0, 2 * life))
        holding += holds_programs(pid)
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    counted = work.once(0)
    survived(f"kill -9 at {KILLS} random moments", work.backend, KILLS, KILLS)
    print(f"a session takes {life:.2f} s; {holding} of {KILLS} held programs when they were killed")
    assert 0 < holding < KILLS  # of both kinds
    assert counted == work.each
