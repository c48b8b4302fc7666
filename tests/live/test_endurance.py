"""What has to be done very often to show: a thousand attachments, a hundred kills.

Most of a session's start is reading: the kernel's symbols, its types, the compiled objects. That is done once here, so
that what is repeated is what could leak or be torn: programs, maps, hooks, return probes and their janitor.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from functools import cache
from pathlib import Path

import pytest

from tests.live.guest import (
    Backend,
    Filters,
    Options,
    bpf_state,
    calls,
    survived,
    workload,
)
from tests.live.test_survival import own_state, resident_kib
from tracer import session as sessions
from tracer.kernel.btf import Btf
from tracer.kernel.symbols import Symbols
from tracer.model import Snapshot
from tracer.probes import plan
from tracer.probes.build import build
from tracer.probes.source import source
from tracer.session import Session

pytestmark = pytest.mark.long

EXT4 = Filters(fs=("ext4",))
TIMES, KILLS = 1000, 100
#: A session's maps hold more than this: a leak of one in twenty would show.
_NOISE_KIB = 32 << 10


@pytest.fixture
def warm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a session reads at its start, read before."""
    symbols = Symbols([plan.CORE])
    with Btf() as btf:
        shared = cache(lambda *choice: source(btf, *choice))
        monkeypatch.setattr(sessions, "Symbols", lambda names: symbols)
        monkeypatch.setattr(plan, "Btf", lambda: nullcontext(btf))
        monkeypatch.setattr(plan, "source", lambda _, *choice: shared(*choice))
        monkeypatch.setattr(plan, "build", cache(build))
        yield


def kernel_kib() -> int:
    """Memory of the kernel's own in which programs and maps lie."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(lines[name].split()[0]) for name in ("Percpu", "VmallocUsed", "SUnreclaim"))


def come_and_go(options: Options, path: Path, number: int) -> int:
    """One session; the calls that it counted of a workload, which every fifth one has."""
    with Session(options) as session:
        if number % 5 == 0:
            workload("first-write", path, 11)
        return calls(session.finish())


@pytest.mark.usefixtures("clean_kernel", "warm")
def test_attached_and_detached_a_thousand_times_it_leaves_nothing(backend: Backend, mounts: dict[str, Path]) -> None:
    options, path = Options(backend=backend, filters=EXT4), mounts["ext4"] / "often"
    for number in range(20):  # what is allocated once
        come_and_go(options, path, number)
    state, memory, kernel, inside = own_state(), resident_kib(), kernel_kib(), bpf_state()
    began = time.monotonic()
    counted = sum(come_and_go(options, path, number) for number in range(TIMES))
    took = time.monotonic() - began
    grown = {"tracer": resident_kib() - memory, "kernel": kernel_kib() - kernel}
    print(f"{TIMES} times in {took:.0f} s, KiB more: {grown}")
    made = 11 * -(-TIMES // 5)
    survived(f"attached and detached {TIMES:,} times", backend, made=made, counted=counted)
    assert counted == made
    assert own_state() == state
    assert grown["tracer"] < 2048
    assert grown["kernel"] < _NOISE_KIB
    # clean_kernel compares again, with time for what the kernel frees later.
    assert len(bpf_state()[0]) <= len(inside[0]) + 8


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


@pytest.mark.usefixtures("clean_kernel", "warm")
def test_killed_at_a_hundred_random_moments_it_leaves_nothing(backend: Backend, mounts: dict[str, Path]) -> None:
    """Its life is over in a few seconds and begins again: a kill meets every part of it, attached or not."""
    options = Options(backend=backend, filters=EXT4)
    come_and_go(options, mounts["ext4"] / "killed", 1)
    chance = random.Random(KILLS)
    holding = 0
    for _ in range(KILLS):
        pid = os.fork()
        if not pid:
            try:
                reading(options)
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0.0, 2.0))
        holding += holds_programs(pid)
        os.kill(pid, signal.SIGKILL)
        assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    counted = come_and_go(options, mounts["ext4"] / "killed", 0)
    print(f"{holding} of {KILLS} held programs when they were killed")
    survived(f"kill -9 at {KILLS} random moments, {holding} of them attaching or attached", backend, KILLS, KILLS)
    assert holding > KILLS // 5
    assert counted == 11
