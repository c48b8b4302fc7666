"""Writes to mappings of persistent memory: each of vm_ops' functions that is asked, counted under its own name."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.filesystems.disks import dax
from tests.filesystems.stage import Stage
from tests.live.guest import NO_LOSS
from tracer.host.mounts import Mounts
from tracer.model.calls import FaultPath, Initiator, Outcome
from tracer.model.hooks import FUNCTION_BACKENDS, Backend
from tracer.model.options import By, Filters, Options
from tracer.model.snapshot import Snapshot
from tracer.session import Session

pytestmark = pytest.mark.matrix

SMALL, AGAIN, HUGE, HUGE_AGAIN, SYNCED, PRIVATE, FROM_KERNEL = 31, 17, 3, 2, 7, 5, 13
PAGE, HUGE_PAGE = 4096, 2 << 20
# include/uapi/asm-generic/mman-common.h
_MAP_SHARED_VALIDATE, _MAP_SYNC = 0x3, 0x80000

#: By filesystem: how to make it so that 2 MiB of a file are 2 MiB of the device; and what is asked.
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "stride=512,stripe_width=512"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=0", "-d", "su=2m,sw=1,agcount=2", "-l", "size=64m,su=4k"),
}
ASKED = {
    "ext4": {
        FaultPath.DAX_FAULT: "ext4_dax_fault",
        FaultPath.DAX_HUGE_FAULT: "ext4_dax_huge_fault",
        FaultPath.PFN_MKWRITE: "ext4_dax_fault",
    },
    "xfs": {
        FaultPath.DAX_FAULT: "xfs_filemap_fault",
        FaultPath.DAX_HUGE_FAULT: "xfs_filemap_huge_fault",
        FaultPath.PFN_MKWRITE: "xfs_filemap_pfn_mkwrite",
    },
}


@dataclass
class Seen:
    """What each backend counted of each step, and the last snapshots."""

    fstype: str
    mountpoint: str
    dev: int
    steps: dict[str, dict[Backend, Snapshot]] = field(default_factory=dict)
    final: dict[Backend, Snapshot] = field(default_factory=dict)

    def calls(self, step: str, backend: Backend) -> Counter[tuple[FaultPath, str, Initiator, Outcome]]:
        found: Counter[tuple[FaultPath, str, Initiator, Outcome]] = Counter()
        for series, calls in self.steps[step][backend].calls.items():
            if series.dev == self.dev:
                assert (series.fstype, series.mountpoint) == (self.fstype, self.mountpoint)
                found[series.path, series.handler, series.initiator, series.outcome] += calls.count
        return found


@contextmanager
def mapped(file: Path, flags: int = mmap.MAP_SHARED, *, huge: bool = False) -> Iterator[mmap.mmap]:
    with file.open("rb+") as stream, closing(mmap.mmap(stream.fileno(), file.stat().st_size, flags)) as memory:
        if not huge:
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        yield memory


def new(file: Path, size: int) -> Path:
    with file.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, size)
    return file


def small(place: Path) -> None:
    with mapped(new(place / "small", SMALL * PAGE)) as memory:
        for page in range(SMALL):
            memory[page * PAGE] = 1


def again(place: Path) -> None:
    file = place / "again"
    file.write_bytes(b"x" * AGAIN * PAGE)
    with mapped(file) as memory:
        for page in range(AGAIN):
            assert memory[page * PAGE] == ord("x")
        for page in range(AGAIN):
            memory[page * PAGE] = 2


def huge(place: Path) -> None:
    with mapped(new(place / "huge", HUGE * HUGE_PAGE), huge=True) as memory:
        for page in range(HUGE):
            memory[page * HUGE_PAGE] = 1


def huge_again(place: Path) -> None:
    """A huge page that was written back is mapped read-only."""
    with mapped(place / "huge", huge=True) as memory:
        for page in range(HUGE_AGAIN):
            memory[page * HUGE_PAGE] = 2
        memory.flush()
        for page in range(HUGE_AGAIN):
            memory[page * HUGE_PAGE + PAGE] = 3


def synced(place: Path) -> None:
    with mapped(new(place / "synced", SYNCED * PAGE), _MAP_SHARED_VALIDATE | _MAP_SYNC) as memory:
        for page in range(SYNCED):
            memory[page * PAGE] = 1


def private(place: Path) -> None:
    """Copied, and no business of the filesystem's."""
    with mapped(new(place / "private", PRIVATE * PAGE), mmap.MAP_PRIVATE) as memory:
        for page in range(PRIVATE):
            memory[page * PAGE] = 1


def from_kernel(place: Path) -> None:
    with mapped(new(place / "from_kernel", FROM_KERNEL * PAGE)) as memory, Path("/dev/zero").open("rb") as zero:
        assert os.readv(zero.fileno(), [memory]) == FROM_KERNEL * PAGE


STEPS: dict[str, Callable[[Path], None]] = {
    step.__name__: step for step in (small, again, huge, huge_again, synced, private, from_kernel)
}
#: Path, initiator and number of calls.
EXPECTED: dict[str, tuple[FaultPath, Initiator, int] | None] = {
    "small": (FaultPath.DAX_FAULT, Initiator.USER, SMALL),
    "again": (FaultPath.PFN_MKWRITE, Initiator.USER, AGAIN),
    "huge": (FaultPath.DAX_HUGE_FAULT, Initiator.USER, HUGE),
    "huge_again": (FaultPath.DAX_HUGE_FAULT, Initiator.USER, 2 * HUGE_AGAIN),
    "synced": (FaultPath.DAX_FAULT, Initiator.USER, SYNCED),
    "private": None,
    "from_kernel": (FaultPath.DAX_FAULT, Initiator.KERNEL, FROM_KERNEL),
}


@pytest.fixture(scope="module", params=list(MAKE))
def seen(request: pytest.FixtureRequest) -> Seen:
    """The device is free again afterwards."""
    fstype: str = request.param
    with Stage(f"dax-{fstype}") as stage:
        place = dax(stage, fstype, MAKE[fstype])
        mount = Mounts.read().at(str(place))
        assert mount is not None
        found = Seen(fstype, mount.mountpoint, mount.dev)
        sessions = {backend: Session(Options(backend=backend, failures=False)) for backend in FUNCTION_BACKENDS}
        for name, step in STEPS.items():
            before = {backend: session.snapshot() for backend, session in sessions.items()}
            step(place)
            found.steps[name] = {
                backend: session.snapshot().since(before[backend]) for backend, session in sessions.items()
            }
        for backend, session in sessions.items():
            found.final[backend] = session.finish()
            session.close()
    return found


@pytest.mark.parametrize("backend", FUNCTION_BACKENDS)
@pytest.mark.parametrize("step", STEPS)
def test_each_write_is_a_call_of_what_was_asked(seen: Seen, step: str, backend: Backend) -> None:
    told = seen.calls(step, backend)
    if (expected := EXPECTED[step]) is None:
        assert not told
        return
    path, initiator, number = expected
    assert told == {(path, ASKED[seen.fstype][path], initiator, Outcome.WRITABLE): number}


@pytest.mark.parametrize("backend", FUNCTION_BACKENDS)
def test_latencies_are_sane_and_nothing_is_lost(seen: Seen, backend: Backend) -> None:
    final = seen.final[backend]
    assert final.lost == NO_LOSS
    for series, calls in final.calls.items():
        if series.dev == seen.dev:
            assert 0 < calls.max_ns <= calls.sum_ns < final.elapsed_ns
    hooks = {hook.name: hook.attached for hook in final.hooks if hook.function.startswith("dax_")}
    assert hooks["dax_iomap_fault:entry"] and hooks["dax_iomap_fault:return"]


def test_filters_and_labels_hold_for_them() -> None:
    with Stage("dax-filters") as stage:
        place = dax(stage, "ext4", MAKE["ext4"])
        dev = Mounts.read().at(str(place)).dev  # type: ignore[union-attr]

        def told(filters: Filters, by: By | None = None) -> Counter[str]:
            with Session(Options(filters=filters, by=by, failures=False)) as session:
                small(place)
                found: Counter[str] = Counter()
                for series, calls in session.finish().calls.items():
                    if series.dev == dev:
                        found[series.who] += calls.count
            return found

        wanted = Filters(fs=("ext4",), mounts=(str(place),), pids=(os.getpid(),))
        assert told(wanted, By.FILE) == {str(place / "small"): SMALL}
        assert told(replace(wanted, fs=("xfs",))) == {}
        assert told(replace(wanted, pids=(1,))) == {}


def test_slow_ones_are_told_one_by_one() -> None:
    with Stage("dax-slow") as stage:
        place = dax(stage, "xfs", MAKE["xfs"])
        with Session(Options(slower_ns=0, failures=False)) as session:
            small(place)
            events = [event for event in session.events(2) if event.path is FaultPath.DAX_FAULT]
        assert [(event.file, event.offset, event.handler, event.outcome) for event in events] == [
            (str(place / "small"), page * PAGE, "xfs_filemap_fault", Outcome.WRITABLE) for page in range(SMALL)
        ]


def test_a_full_device_is_told(tmp_path: Path) -> None:
    """A child writes into a hole when no space is left, and dies of it."""
    script = (
        "import mmap, sys\nfile = open(sys.argv[1], 'rb+')\nmemory = mmap.mmap(file.fileno(), 4096)\n"
        "memory.madvise(mmap.MADV_NOHUGEPAGE)\nmemory[0] = 1\n"
    )
    with Stage("dax-full") as stage:
        place = dax(stage, "xfs", MAKE["xfs"])
        dev = Mounts.read().at(str(place)).dev  # type: ignore[union-attr]
        hole = place / "hole"
        with hole.open("wb") as stream:
            stream.truncate(PAGE)
        subprocess.run(["dd", "if=/dev/zero", f"of={place}/filler", "bs=1M"], capture_output=True, check=False)
        subprocess.run(["dd", "if=/dev/zero", f"of={place}/rest", "bs=4k"], capture_output=True, check=False)
        with Session(Options(failures=False)) as session:
            assert subprocess.run([sys.executable, "-c", script, str(hole)], check=False).returncode == -7
            told = {(s.path, s.outcome): h.count for s, h in session.finish().calls.items() if s.dev == dev}
        assert told == {(FaultPath.DAX_FAULT, Outcome.SIGBUS): 1}
