"""Every refused write is explained: who, which file, which errno, from where, and what the signal did."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.live.bad_disk import BadDisk
from tests.live.guest import ROOT, run
from tests.live.refusals import (
    NOBODY,
    OFFSET,
    PROJECT,
    REFUSALS,
    SIZE,
    VICTIM,
    Met,
    Refusal,
    Stage,
    odd_path,
    overlay,
    prepare,
)
from tests.live.reported import tell
from tracer.explain import Explainer
from tracer.failure import Class, Code, Disposition, Fact, FailureSeries, Source
from tracer.kernel.preemption import preemptible
from tracer.model import Backend, Filters, Initiator, Loss, Options, Snapshot
from tracer.model import Path as FaultPath
from tracer.session import Session

pytestmark = pytest.mark.newest

HANDLERS = {
    "ext4": "ext4_page_mkwrite",
    "ext3": "ext4_page_mkwrite",
    "ext2": "ext4_page_mkwrite",
    "xfs": "xfs_filemap_page_mkwrite",
    "btrfs": "btrfs_page_mkwrite",
    "f2fs": "f2fs_vm_page_mkwrite",
}
CAUGHT, THREADS, BURST = 13, 211, 5003
PAGE = 4096
AT = OFFSET // PAGE * PAGE
#: What each report must say: class, errno and offset of the page.
REPORTED = {
    "tmpfs": (Class.TMPFS_FULL, "ENOSPC", AT),
    "catch": (Class.REFUSED, "ENOSPC", AT),
    "burst": (Class.REFUSED, "ENOSPC", AT),
    "disk": (Class.MEDIA, "EIO", AT),
    "xfs-disk": (Class.MEDIA, "EIO", AT),
    "shrunk xfs-user": (Class.BEYOND_END, "", AT),
    "shrunk tmpfs": (Class.BEYOND_END, "", AT),
    "shrunk overlay": (Class.BEYOND_END, "", AT),
    "immutable": (Class.REFUSED, "EPERM", AT),
    "deleted": (Class.REFUSED, "ENOSPC", AT),
    "odd": (Class.BEYOND_END, "", AT),
    "overlay": (Class.REFUSED, "ENOSPC", AT),
    "namespace": (Class.REFUSED, "ENOSPC", AT),
    "subvolume": (Class.REFUSED, "ENOSPC", AT),
}
KERNEL = os.uname().release


@pytest.fixture(scope="session")
def places() -> dict[str, Path]:
    """A file on each filesystem that refuses, and on a tmpfs that is full."""
    found = {refusal.name: prepare(refusal) for refusal in REFUSALS if not refusal.late}
    tmpfs = ROOT / "sigbus" / "tmpfs"
    tmpfs.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmpfs))
    (tmpfs / "filler").write_bytes(bytes(1 << 20))
    found["tmpfs"] = tmpfs / "file"
    return found


@dataclass
class Story:
    """What all victims met on one backend."""

    backend: Backend
    met: dict[str, Met] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    seen: int = 0
    burst: Mapping[FailureSeries, int] = field(default_factory=dict)
    final: Snapshot | None = None


@pytest.fixture(scope="session")
def story(request: pytest.FixtureRequest, backend: Backend, places: dict[str, Path]) -> Iterator[Story]:
    """Let every victim run under one watch. What was reported of each is printed: the table in the docs has it."""
    told = Story(backend)
    with Session(Options(backend, every_errno=True)) as session:
        stage, met = Stage(session), told.met
        for refusal in REFUSALS:
            file = prepare(refusal, f"-{backend}") if refusal.late else places[refusal.name]
            told.files[refusal.name] = file
            breaks = partial(_break, refusal, file) if refusal.late else None
            met[refusal.name] = stage.victim(refusal.victim, file, SIZE, OFFSET, uid=refusal.uid, meanwhile=breaks)
        for name, disk in (
            ("disk", BadDisk(f"disk-{backend}")),
            ("xfs-disk", BadDisk(f"xfs-disk-{backend}", "xfs", 320)),
        ):
            told.files[name] = disk.file
            met[name] = stage.victim("store", disk.file, SIZE, OFFSET, meanwhile=partial(_fail, disk))
        met["tmpfs"] = stage.victim("store", places["tmpfs"], SIZE, OFFSET)
        full = places["ext4"]
        told.files |= dict.fromkeys(("catch", "burst"), full)
        told.files["tmpfs"] = places["tmpfs"]
        met["catch"] = stage.victim("catch", full, SIZE, OFFSET, CAUGHT, count=CAUGHT)
        for fstype in ("xfs-user", "tmpfs"):
            place = ROOT / "shrunk" if fstype == "tmpfs" else places[fstype].parent / "shrunk"
            told.files[f"shrunk {fstype}"] = place
            met[f"shrunk {fstype}"] = stage.victim("shrunk", place, SIZE, 8193, OFFSET)
            place.unlink()
        met["hugetlb"] = stage.victim("hugetlb")
        for how in ("die", "catch", "ignore", "block"):
            met[f"sent {how}"] = stage.victim("wait", how, meanwhile=_send, kill=True)
        met["threads"] = stage.victim("threads", full.parent / "wide", THREADS)
        met["poison"] = stage.victim("poison", ROOT / f"poison-{backend}")
        fixed = told.files["immutable"] = places["ext4-user"].parent / f"fixed-{backend}"
        met["immutable"] = stage.victim(
            "store", fixed, SIZE, OFFSET, meanwhile=lambda _: run("chattr", "+i", str(fixed))
        )
        gone = told.files["deleted"] = full.parent / "gone"
        met["deleted"] = stage.victim("store", gone, SIZE, OFFSET, meanwhile=lambda _: gone.unlink())
        told.files["odd"] = Path(os.fsdecode(odd_path(ROOT / "oddities", str(backend))))
        met["odd"] = stage.victim("shrunk", os.fsencode(told.files["odd"]), SIZE, 4097, OFFSET)
        told.files["overlay"], told.files["upper"] = overlay(f"-{backend}")
        met["overlay"] = stage.victim("store", told.files["overlay"], SIZE, OFFSET)
        told.files["shrunk overlay"] = told.files["overlay"].with_name("shrunk")
        met["shrunk overlay"] = stage.victim("shrunk", told.files["shrunk overlay"], SIZE, 8193, OFFSET)
        inside = ROOT / f"inside-{backend}"
        inside.mkdir()
        bind = ("unshare", "-m", "sh", "-c", f'mount --bind {full.parent} {inside} && exec "$@"', "sh")
        told.files["namespace"] = inside / "file"
        met["namespace"] = stage.victim("store", told.files["namespace"], SIZE, OFFSET, wrapper=bind)
        volume = places["btrfs"].parent / f"volume-{backend}"
        run("btrfs", "subvolume", "create", str(volume))
        told.files["subvolume"] = volume / "file"
        met["subvolume"] = stage.victim("store", told.files["subvolume"], SIZE, OFFSET)
        before = session.snapshot()
        met["burst"] = stage.victim("catch", full, SIZE, OFFSET, BURST)
        told.burst = session.snapshot().since(before).failures
        told.seen = sum(n for burst, n in session.bursts().items() if burst.tgid == met["threads"].pid)
        told.final = session.finish()
    tell(request, backend, met)
    yield told


def _fail(disk: BadDisk, _pid: int) -> None:
    disk.fail()


def _break(refusal: Refusal, file: Path, _pid: int) -> None:
    refusal.refuse(file.parent)


def _send(pid: int) -> None:
    os.kill(pid, signal.SIGBUS)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_a_refused_store_is_explained_with_the_errno(story: Story, refusal: Refusal) -> None:
    met = story.met[refusal.name]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.pid, failure.tid, failure.uid, failure.comm) == (met.pid, met.pid, refusal.uid, "victim")
    assert (failure.source, failure.handler) == (Source.PAGE_MKWRITE, HANDLERS[refusal.fstype])
    assert failure.fstype == refusal.fstype
    file = story.files[refusal.name]
    assert (failure.mountpoint, failure.file, failure.deleted) == (str(file.parent), str(file), False)
    assert refusal.late or failure.inode == file.stat().st_ino
    assert (failure.offset, failure.address, failure.size) == (OFFSET // PAGE * PAGE, met.address, SIZE)
    path = FaultPath.FIRST_WRITE if refusal.victim == "store" else FaultPath.WRITE_PROTECT
    assert (failure.path, failure.initiator, failure.write) == (path, Initiator.USER, True)
    assert failure.syscall == -1
    assert failure.latency_ns > 0
    assert failure.errno_name in refusal.errno.split()
    assert failure.errno_from in refusal.inner
    assert failure.signal is not None
    assert (failure.signal.code, failure.signal.disposition) == (Code.ADRERR, Disposition.FATAL)
    assert failure.signal.address == met.address


@pytest.mark.parametrize("name", REPORTED)
def test_each_report_has_class_errno_file_offset_and_victim(story: Story, name: str) -> None:
    met = story.met[name]
    for failure in met.failures:
        assert (failure.pid, failure.uid) == (met.pid, 0)
        assert (failure.tid, failure.comm) == (met.pid, "victim")
        assert (failure.file, failure.offset) == (str(story.files[name]), REPORTED[name][2])
    failure, diagnosis = met.explained.failure, met.explained.diagnosis
    assert (diagnosis.kind, diagnosis.errno) == REPORTED[name][:2]
    if failure.signal:
        assert failure.signal.address == met.address


def test_a_file_in_a_subvolume_is_told_with_its_own_inode_and_the_mount_point_of_the_whole(story: Story) -> None:
    (failure,) = story.met["subvolume"].failures
    file = story.files["subvolume"]
    assert (failure.fstype, failure.inode, failure.mountpoint) == ("btrfs", file.stat().st_ino, str(file.parents[1]))
    state = story.met["subvolume"].explained.state
    assert state.file is not None
    assert (state.file.backing, state.subvolume_read_only) == ("hole", False)
    assert {chunk.kind for chunk in state.chunks} == {"data", "metadata", "unallocated"}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_the_state_of_the_host_is_that_of_the_failure(story: Story, refusal: Refusal) -> None:
    explained = story.met[refusal.name].explained
    state, diagnosis = explained.state, explained.diagnosis
    assert (diagnosis.kind, diagnosis.inferred_from) == (Class.REFUSED, "")
    assert state.mountpoint == str(story.files[refusal.name].parent)
    assert explained.failure.command[:2] == (str(VICTIM), refusal.victim)
    if refusal.late:
        return
    assert state.file is not None
    assert (state.file.size, state.file.backing) == (SIZE, "hole")
    assert state.file.allocated <= PAGE  # ext2 and ext3 have allocated the indirect block
    limits = {(quota.kind, quota.number): quota.free for quota in state.quotas}
    if "user" in refusal.name:
        assert limits["user", NOBODY] < PAGE
    elif "group" in refusal.name and refusal.fstype != "btrfs":
        assert limits["group", NOBODY] < PAGE
    elif "project" in refusal.name:
        assert limits["project", PROJECT] < PAGE
    elif "qgroup" in refusal.name:
        assert limits["subvolume", 5] < 1 << 20
    else:
        assert state.space is not None
        assert state.space.free < 1 << 20


def test_a_full_tmpfs_refuses_in_fault(story: Story, places: dict[str, Path]) -> None:
    met = story.met["tmpfs"]
    (failure,) = met.failures
    assert (failure.source, failure.handler, failure.fstype) == (Source.FAULT, "shmem_fault", "tmpfs")
    assert (failure.file, failure.offset, failure.address) == (
        str(places["tmpfs"]), OFFSET // PAGE * PAGE, met.address,
    )  # fmt: skip
    assert (failure.errno_name, bool(failure.facts & Fact.BEYOND_END)) == ("ENOSPC", False)
    assert failure.signal is not None
    assert failure.signal.disposition is Disposition.FATAL


def test_each_caught_signal_belongs_to_its_own_fault(story: Story) -> None:
    met = story.met["catch"]
    assert met.returncode == 0
    assert [failure.ordinal for failure in met.failures] == list(range(1, CAUGHT + 1))
    assert {failure.errno_name for failure in met.failures} == {"ENOSPC"}
    assert {failure.signal and failure.signal.disposition for failure in met.failures} == {Disposition.CAUGHT}
    assert {failure.address for failure in met.failures} == {met.address}


@pytest.mark.parametrize("fstype", ["xfs-user", "tmpfs", "overlay"])
def test_a_page_beyond_the_end_names_who_truncated(story: Story, fstype: str) -> None:
    met = story.met[f"shrunk {fstype}"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, bool(failure.facts & Fact.BEYOND_END), failure.size, failure.write) == (
        Source.FAULT,
        True,
        8193,
        False,
    )
    assert failure.truncation is not None
    assert (failure.truncation.size, failure.truncation.by.pid) == (8193, int(met.lines[0]))
    assert failure.truncation.by.comm == "victim"


@pytest.mark.parametrize("disk", ["disk", "xfs-disk"])
def test_a_page_that_cannot_be_read_is_a_fault_within_the_file(story: Story, disk: str) -> None:
    met = story.met[disk]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, bool(failure.facts & Fact.BEYOND_END), failure.write) == (Source.FAULT, False, True)
    assert failure.file == str(story.files[disk])
    # 5.10 has no function of its own that reads the page.
    assert failure.errno_name == ("" if KERNEL.startswith("5.") else "EIO")


def test_an_errno_that_nobody_returned_is_inferred_and_called_so(story: Story) -> None:
    met = story.met["immutable"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, failure.errno_name) == (Source.PAGE_MKWRITE, "")
    assert failure.signal is not None
    diagnosis = met.explained.diagnosis
    assert (diagnosis.errno, diagnosis.inferred_from) == ("EPERM", "the inode's flag S_IMMUTABLE")


def test_broken_memory_is_told_from_a_refusal(story: Story) -> None:
    met = story.met["poison"]
    assert met.returncode == -signal.SIGBUS
    assert met.explained.diagnosis.kind is Class.MEDIA
    assert {f.signal and f.signal.code for f in met.failures} <= {Code.MCEERR_AR, Code.MCEERR_AO}


def test_huge_pages_run_out(story: Story) -> None:
    met = story.met["hugetlb"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, failure.fstype, failure.write) == (Source.HUGETLB, "hugetlbfs", True)
    assert failure.address == met.address + 12345
    assert not (failure.facts & Fact.BEYOND_END)


@pytest.mark.parametrize(
    ("how", "disposition", "returncode"),
    [
        ("die", Disposition.FATAL, -signal.SIGBUS),
        ("catch", Disposition.CAUGHT, 0),
        ("ignore", Disposition.IGNORED, -signal.SIGKILL),
        ("block", Disposition.BLOCKED, -signal.SIGKILL),
    ],
)
def test_a_signal_that_was_sent_names_its_sender(
    story: Story, how: str, disposition: Disposition, returncode: int
) -> None:
    met = story.met[f"sent {how}"]
    assert met.returncode == returncode
    (failure,) = met.failures
    assert failure.source is Source.SIGNAL
    assert failure.signal is not None
    assert (failure.signal.code, failure.signal.disposition) == (Code.USER, disposition)
    assert failure.signal.sender is not None
    assert (failure.signal.sender.pid, failure.signal.sender_uid) == (os.getpid(), os.getuid())


def _may_miss(story: Story) -> bool:
    """Whether the kernel may skip programs, and counts it: fentry programs that it preempts."""
    return story.backend is Backend.FENTRY and preemptible()


def test_many_threads_at_once_are_counted_to_the_last(story: Story) -> None:
    met = story.met["threads"]
    assert met.returncode == 0
    assert story.seen == THREADS or (_may_miss(story) and story.seen < THREADS)
    # Where the refusal was missed, its signal comes alone.
    told = [failure for failure in met.failures if failure.source is Source.PAGE_MKWRITE]
    assert 1 <= len(told) < THREADS
    assert len({failure.tid for failure in told}) == len(told)
    assert {failure.errno_name for failure in told} - ({""} if _may_miss(story) else set()) == {"ENOSPC"}
    # Page and thread fit: each thread stores to a page of its own.
    assert [failure for failure in told if failure.address - failure.offset != met.address] == []


def test_a_burst_of_which_few_are_told_is_counted_to_the_last(story: Story, places: dict[str, Path]) -> None:
    assert len(story.met["burst"].failures) < BURST
    ((series, number),) = story.burst.items()
    assert (series.mountpoint, series.kind, series.errno) == (str(places["ext4"].parent), Class.REFUSED, "ENOSPC")
    assert number == BURST


def test_a_shutdown_that_was_seen_tells_the_errno_without_a_hook_on_each_call(backend: Backend) -> None:
    (refusal,) = (refusal for refusal in REFUSALS if refusal.name == "xfs-down")
    file = prepare(refusal, f"-seen-{backend}")
    with Session(Options(backend)) as session:
        met = Stage(session).victim("rewrite", file, SIZE, OFFSET, meanwhile=partial(_break, refusal, file))
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


def test_failures_of_a_handler_that_is_hooked_itself_are_whole(places: dict[str, Path]) -> None:
    """The handler sees other flags of the fault than do_page_mkwrite does."""
    options = Options(Backend.KPROBE, Filters(handlers=("ext4_page_mkwrite",)))
    with Session(options) as session:
        stage = Stage(session)
        met = stage.victim("store", places["ext4"], SIZE, OFFSET)
        called = stage.victim("read-from", places["ext4"], SIZE, OFFSET, "/dev/zero", 0)
        subprocess.run(
            [VICTIM, "store", places["tmpfs"], str(SIZE), str(OFFSET)], stdin=subprocess.DEVNULL, check=False
        )
        final = session.finish()
        assert session.failures() == []
    (failure,) = met.failures
    assert failure.signal is not None
    assert (failure.initiator, failure.errno_name, failure.syscall) == (Initiator.USER, "ENOSPC", -1)
    assert {(f.signal, f.initiator, f.syscall) for f in called.failures} == {(None, Initiator.UNKNOWN, 0)}
    assert {series.fstype for series in final.failures} == {"ext4"}


def test_a_deleted_file_keeps_its_name(story: Story, places: dict[str, Path]) -> None:
    met = story.met["deleted"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.file, failure.deleted) == (str(places["ext4"].parent / "gone"), True)
    assert failure.errno_name == "ENOSPC"


def test_a_long_path_of_odd_bytes_is_whole(story: Story) -> None:
    met = story.met["odd"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert os.fsencode(failure.file) == os.fsencode(story.files["odd"])
    assert failure.truncation is not None


def test_the_path_is_that_which_the_victim_sees(story: Story) -> None:
    for name in ("overlay", "namespace"):
        met = story.met[name]
        assert met.returncode == -signal.SIGBUS
        (failure,) = met.failures
        assert failure.file == str(story.files[name])
        assert (failure.fstype, failure.errno_name) == ("ext4", "ENOSPC")
    (failure,) = story.met["overlay"].failures
    assert failure.mountpoint == str(story.files["upper"])


def test_nothing_is_lost_and_every_hook_is_there(story: Story) -> None:
    assert story.final is not None
    lost = {kind for kind, number in story.final.lost.items() if number}
    if _may_miss(story) and Loss.MISSED_PROBE in lost:
        # A program that is skipped leaves the other of its pair alone.
        lost -= {Loss.MISSED_PROBE, Loss.UNMATCHED_ENTRY, Loss.UNMATCHED_RETURN}
    assert lost == set()
    assert [f"{hook.name}: {hook.detail}" for hook in story.final.hooks if not hook.attached] == []
