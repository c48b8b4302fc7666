"""Each system call that is refused a page is told once, rightly: every way of access, to everything that can refuse."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest

from tests.live.bad_disk import BadDisk
from tests.live.guest import NO_LOSS, ROOT, Backend, Options, cgroup, inside, lost, run
from tests.live.refusals import Refusal, fill, prepare
from tracer.model.calls import Initiator
from tracer.model.failures import Burst, Class, Failure, FailureSource
from tracer.model.snapshot import Snapshot
from tracer.session import Session

pytestmark = pytest.mark.every
ACCESSES = shutil.copy(os.environ["ACCESSES"], "/tmp/accesses")
RELEASE = tuple(map(int, os.uname().release.split(".")[:2]))
#: Calls of each kind: odd, and fewer than are told one by one (bpf/failure.h).
CALLS = 13
PAGE, HUGE = 4096, 2 << 20
#: A page in the middle of a small file.
OFFSET = 6 * PAGE
#: System calls by the way of access, of those that write to memory, and of those that read it.
TO_MEMORY = {
    "read": 0, "pread": 17, "readv": 19, "preadv": 295, "direct": 17, "recv": 45, "recvmsg": 47, "vm_readv_to": 310,
    "vm_writev_to": 311, "populate_write": 28, "populate_apart": 28, "sendfile": 40, "splice": 275, "uring_read": 426,
    "uring_recv": 426,
}  # fmt: skip
FROM_MEMORY = {
    "write": 1, "pwrite": 18, "writev": 20, "pwritev": 296, "write_socket": 1, "writev_socket": 20, "send": 44,
    "sendmsg": 46, "vmsplice": 278, "vm_readv_from": 310, "vm_writev_from": 311, "populate_read": 28,
    "uring_write": 426, "uring_send": 426,
}  # fmt: skip
if RELEASE < (5, 14):
    del TO_MEMORY["populate_write"], TO_MEMORY["populate_apart"], FROM_MEMORY["populate_read"]
WAYS = {**TO_MEMORY, **FROM_MEMORY}
#: Those by which the kernel pins pages of the memory, rather than access it.
PINNED = ("direct", "vmsplice", "vm_writev_to", "vm_readv_from", "populate_read", "populate_write", "populate_apart")
#: For a page that cannot be read. Before 6.9, MADV_POPULATE_* asks for it for ever (faultin_page_range, mm/gup.c); to
#: 5.15, pinning it is not told (docs/commands/sigbus.md).
READABLE = {
    way: number
    for way, number in WAYS.items()
    if RELEASE >= (6, 9) or (not way.startswith("populate") and (way not in PINNED or RELEASE >= (5, 16)))
}
#: In these, the kernel asks for the rest by itself once it has a part, as another call would: docs/internals.md.
ASKS_AGAIN = (
    "vmsplice", "vm_readv_to", "vm_readv_from", "vm_writev_to", "vm_writev_from", "uring_read", "uring_write",
    "populate_apart",
)  # fmt: skip
#: A case of its own: calls of a user, with data of an overlay.
USER, BY_USER = 1000, ("end", "read of an overlay", 0)
#: Bytes of each call that lie before the page that is refused.
BEFORE = (0, 1024)


@dataclass(frozen=True)
class Refused:
    """What refuses a page, and how that must be told."""

    source: FailureSource
    kind: Class
    errno: str
    ways: Mapping[str, int] = field(default_factory=lambda: WAYS)
    offset: int = OFFSET


BACKINGS = {
    "page_mkwrite": Refused(FailureSource.PAGE_MKWRITE, Class.REFUSED, "ENOSPC", TO_MEMORY),
    "tmpfs": Refused(FailureSource.FAULT, Class.TMPFS_FULL, "ENOSPC"),
    "end": Refused(FailureSource.FAULT, Class.BEYOND_END, ""),
    "pool": Refused(FailureSource.HUGETLB, Class.HUGETLB, "ENOSPC", offset=HUGE),
    "limit": Refused(FailureSource.HUGETLB, Class.HUGETLB, "ENOSPC", offset=HUGE),
    "disk": Refused(FailureSource.FAULT, Class.MEDIA, "EIO", READABLE),
}


@contextmanager
def backing(name: str, which: str) -> Iterator[Path]:
    """A file whose page at OFFSET is refused, and none before it."""
    if name == "page_mkwrite":
        refusal = Refusal("accessed", "ext4", "ENOSPC", late=True)
        file = prepare(refusal, which)
        _sparse(file)
        os.sync()
        fill(file.parent)
        yield file
    elif name == "tmpfs":
        place = ROOT / f"full{which}"
        place.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place))
        _sparse(place / "file")
        fill(place)
        yield place / "file"
    elif name == "end":
        file = ROOT / f"short{which}"
        file.write_bytes(bytes(OFFSET))
        yield file
    elif name == "disk":
        disk = BadDisk(f"bad{which}")
        disk.fail_at(OFFSET)
        yield disk.file
    else:
        if name == "limit":
            Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+hugetlb")
        with _huge(name) as file:
            yield file


def _sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.write(bytes(OFFSET))
        stream.truncate(2 * OFFSET)


@contextmanager
def _huge(name: str) -> Iterator[Path]:
    """A file that has its first huge page, and gets no second one: the pool is used up, or a cgroup may have none."""
    place, pool = ROOT / name, Path("/proc/sys/vm/nr_hugepages")
    place.mkdir(exist_ok=True)
    run("mount", "-t", "hugetlbfs", "none", str(place))
    pool.write_text("1" if name == "pool" else "2")
    with (place / "file").open("wb+") as stream:
        stream.truncate(2 * HUGE)
        with mmap.mmap(stream.fileno(), HUGE) as memory:
            memory[0] = 1
    try:
        yield place / "file"
    finally:
        run("umount", str(place))
        pool.write_text("0")


@dataclass
class Got:
    """What one process said of its calls, and what was told of them."""

    efault: int
    less: int
    failures: list[Failure]
    counted: list[tuple[Burst, int]]


@dataclass
class Told:
    """By backing, way and bytes before the page."""

    files: dict[str, Path] = field(default_factory=dict)
    inodes: dict[str, int] = field(default_factory=dict)
    got: dict[tuple[str, str, int], Got] = field(default_factory=dict)
    final: Snapshot | None = None


@pytest.fixture(scope="session")
def told(backend: Backend, mounts: dict[str, Path]) -> Iterator[Told]:
    """Make every access, under one session."""
    result, failures = Told(), []
    said: dict[tuple[str, str, int], tuple[int, int, int]] = {}
    good = mounts["ext4"] / "good"
    good.write_bytes(bytes(4 << 20))
    with Session(Options(backend)) as session:
        for name, what in BACKINGS.items():
            with ExitStack() as stack:
                file = result.files[name] = stack.enter_context(backing(name, f"-{backend}"))
                result.inodes[name] = file.stat().st_ino
                limits = {"hugetlb_2MB.max": "0"} if name == "limit" else {}
                place = stack.enter_context(cgroup("accesses", **limits))
                pairs = tuple(product(what.ways, BEFORE))
                calls = _access(place, file, what.offset, good, pairs)
                said |= {(name, *pair): calls[pair] for pair in pairs}
                if name == "end":
                    file.chmod(0o666)
                    other = stack.enter_context(_of_overlay(good.parent / "read"))
                    (said[BY_USER],) = _access(place, file, what.offset, other, [("read", 0)], user=USER).values()
            failures += session.failures()
        result.final = session.finish()
        failures += session.failures()
        for case, (pid, efault, less) in said.items():
            counted = [(burst, n) for burst, n in session.bursts().items() if burst.tgid == pid]
            result.got[case] = Got(efault, less, [one for one in failures if one.pid == pid], counted)
    yield result
    good.unlink()


@contextmanager
def _of_overlay(base: Path) -> Iterator[Path]:
    """A file of an overlay: while the kernel reads it, the task has the credentials of who mounted that."""
    layers = {name: base / name for name in ("lower", "upper", "work", "merged")}
    for layer in layers.values():
        layer.mkdir(parents=True)
    run("modprobe", "overlay")
    options = ",".join(f"{name}dir={layers[name]}" for name in ("lower", "upper", "work"))
    run("mount", "-t", "overlay", "-o", options, "overlay", str(layers["merged"]))
    file = layers["merged"] / "good"
    file.write_bytes(bytes(PAGE))
    file.chmod(0o666)
    try:
        yield file
    finally:
        run("umount", str(layers["merged"]))
        shutil.rmtree(base)


def _access(
    place: Path, file: Path, offset: int, good: Path, pairs: Sequence[tuple[str, int]], user: int = 0
) -> dict[tuple[str, int], tuple[int, int, int]]:
    """By way and bytes before the page: the process, how many calls got EFAULT, how many less than they asked for."""
    said = [str(word) for word in (file, offset, CALLS, good, *(word for pair in pairs for word in pair))]
    command = inside(place, "setpriv", f"--reuid={user}", "--clear-groups", ACCESSES, *said)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{said}: exit code {done.returncode}: {done.stderr}"
    lines = [line.split() for line in done.stdout.splitlines()]
    found = {(way, int(before)): (int(pid), int(efault), int(less)) for way, before, pid, efault, less in lines}
    assert tuple(found) == tuple(pairs)
    return found


@pytest.mark.parametrize("name", BACKINGS)
def test_each_refused_call_is_told_once(told: Told, name: str) -> None:
    what = BACKINGS[name]
    for way, before in product(what.ways, BEFORE):
        got = told.got[name, way, before]
        assert got.efault + got.less == CALLS, (way, before)
        ((burst, counted),) = got.counted
        if before and way in ASKS_AGAIN:
            assert CALLS <= counted <= 3 * CALLS, (way, before)
            assert CALLS <= len(got.failures) <= counted, (way, before)
        else:
            assert counted == len(got.failures) == CALLS, (way, before)
        assert burst.inode == told.inodes[name]


@pytest.mark.parametrize("name", BACKINGS)
def test_each_report_says_by_which_call_and_what_refused(told: Told, name: str) -> None:
    what = BACKINGS[name]
    for way, before in product(what.ways, BEFORE):
        assert told.got[name, way, before].failures, (way, before)
        for failure in told.got[name, way, before].failures:
            assert (failure.source, failure.signal) == (what.source, None), (way, before)
            assert failure.initiator is (Initiator.KERNEL), (way, before)
            assert failure.syscall == what.ways[way], (way, before)
            worker = way.startswith("uring") and failure.comm == f"iou-wrk-{failure.pid}"
            assert worker or failure.comm == "accesses", (way, before)
            assert (failure.file, failure.offset) == (str(told.files[name]), what.offset), (way, before)
            assert (failure.verdict.kind, failure.verdict.errno) == (what.kind, what.errno), (way, before)


def test_the_user_is_who_calls_also_where_an_overlay_reads_as_another(told: Told) -> None:
    users = {case: {failure.uid for failure in got.failures} for case, got in told.got.items()}
    assert users == {case: {USER if case == BY_USER else 0} for case in told.got}


def test_nothing_is_lost_meanwhile(told: Told) -> None:
    assert told.final is not None
    assert lost(told.final) == NO_LOSS
