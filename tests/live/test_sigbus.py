"""Every refused write is explained: who, which file, which errno, from where, and what the signal did."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.live.refusals import NOBODY, OFFSET, PROJECT, REFUSALS, SIZE, VICTIM, Refusal
from tests.live.victims import Victims
from tracer.model.calls import FaultPath, Initiator
from tracer.model.failures import Class, Code, Disposition, Fact, FailureSource
from tracer.model.host_state import PARTLY

pytestmark = pytest.mark.newest

HANDLERS = {
    "ext4": "ext4_page_mkwrite",
    "ext3": "ext4_page_mkwrite",
    "ext2": "ext4_page_mkwrite",
    "xfs": "xfs_filemap_page_mkwrite",
    "btrfs": "btrfs_page_mkwrite",
    "f2fs": "f2fs_vm_page_mkwrite",
}
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


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_a_refused_store_is_explained_with_the_errno(victims: Victims, refusal: Refusal) -> None:
    met = victims.met[refusal.name]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.pid, failure.tid, failure.uid, failure.comm) == (met.pid, met.pid, refusal.uid, "victim")
    assert (failure.source, failure.handler) == (FailureSource.PAGE_MKWRITE, HANDLERS[refusal.fstype])
    assert failure.fstype == refusal.fstype
    file = victims.files[refusal.name]
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
def test_each_report_has_class_errno_file_offset_and_victim(victims: Victims, name: str) -> None:
    met = victims.met[name]
    for failure in met.failures:
        assert (failure.pid, failure.uid) == (met.pid, 0)
        assert (failure.tid, failure.comm) == (met.pid, "victim")
        assert (failure.file, failure.offset) == (str(victims.files[name]), REPORTED[name][2])
    failure, diagnosis = met.explained.failure, met.explained.diagnosis
    assert (diagnosis.kind, diagnosis.errno) == REPORTED[name][:2]
    if failure.signal:
        assert failure.signal.address == met.address


def test_a_file_in_a_subvolume_is_told_with_its_own_inode_and_the_mount_point_of_the_whole(victims: Victims) -> None:
    (failure,) = victims.met["subvolume"].failures
    file = victims.files["subvolume"]
    assert (failure.fstype, failure.inode, failure.mountpoint) == ("btrfs", file.stat().st_ino, str(file.parents[1]))
    state = victims.met["subvolume"].explained.state
    assert state.file is not None
    assert (state.file.backing, state.subvolume_read_only) == ("hole", False)
    assert {chunk.kind for chunk in state.chunks} == {"data", "metadata", "unallocated"}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_the_state_of_the_host_is_that_of_the_failure(victims: Victims, refusal: Refusal) -> None:
    explained = victims.met[refusal.name].explained
    state, diagnosis = explained.state, explained.diagnosis
    assert (diagnosis.kind, diagnosis.inferred_from) == (Class.REFUSED, "")
    assert state.mountpoint == str(victims.files[refusal.name].parent)
    assert explained.failure.command[:2] == (str(VICTIM), refusal.victim)
    if refusal.late:
        return
    assert state.file is not None
    # ext2 allocates some of a page's four blocks, if it has them, before it is refused the next.
    backing = {"hole", PARTLY} if refusal.fstype == "ext2" else {"hole"}
    assert state.file.size == SIZE and state.file.backing in backing
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


def test_a_full_tmpfs_refuses_in_fault(victims: Victims, refusing: dict[str, Path]) -> None:
    met = victims.met["tmpfs"]
    (failure,) = met.failures
    assert (failure.source, failure.handler, failure.fstype) == (FailureSource.FAULT, "shmem_fault", "tmpfs")
    assert (failure.file, failure.offset, failure.address) == (
        str(refusing["tmpfs"]), OFFSET // PAGE * PAGE, met.address,
    )  # fmt: skip
    assert (failure.errno_name, bool(failure.facts & Fact.BEYOND_END)) == ("ENOSPC", False)
    assert failure.signal is not None
    assert failure.signal.disposition is Disposition.FATAL


@pytest.mark.parametrize("fstype", ["xfs-user", "tmpfs", "overlay"])
def test_a_page_beyond_the_end_names_who_truncated(victims: Victims, fstype: str) -> None:
    met = victims.met[f"shrunk {fstype}"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, bool(failure.facts & Fact.BEYOND_END), failure.size, failure.write) == (
        FailureSource.FAULT,
        True,
        8193,
        False,
    )
    assert failure.truncation is not None
    sizes = (failure.truncation.from_size, failure.truncation.size)
    assert (*sizes, failure.truncation.by.pid) == (SIZE, 8193, int(met.lines[0]))
    assert failure.truncation.by.comm == "victim"


@pytest.mark.parametrize("disk", ["disk", "xfs-disk"])
def test_a_page_that_cannot_be_read_is_a_fault_within_the_file(victims: Victims, disk: str) -> None:
    met = victims.met[disk]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, bool(failure.facts & Fact.BEYOND_END), failure.write) == (FailureSource.FAULT, False, True)
    assert failure.file == str(victims.files[disk])
    # 5.10 has no function of its own that reads the page.
    assert (failure.errno_name, failure.errno == 0) == ("EIO", KERNEL.startswith("5."))


def test_an_errno_that_nobody_returned_is_inferred_and_called_so(victims: Victims) -> None:
    met = victims.met["immutable"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, failure.errno, failure.errno_name) == (FailureSource.PAGE_MKWRITE, 0, "EPERM")
    assert failure.signal is not None
    diagnosis = met.explained.diagnosis
    assert (diagnosis.errno, diagnosis.inferred_from) == ("EPERM", "the inode's flag S_IMMUTABLE")


def test_broken_memory_is_told_from_a_refusal(victims: Victims) -> None:
    met = victims.met["poison"]
    assert met.returncode == -signal.SIGBUS
    assert met.explained.diagnosis.kind is Class.MEDIA
    assert {f.signal and f.signal.code for f in met.failures} <= {Code.MCEERR_AR, Code.MCEERR_AO}


def test_huge_pages_run_out(victims: Victims) -> None:
    met = victims.met["hugetlb"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, failure.fstype, failure.write) == (FailureSource.HUGETLB, "hugetlbfs", True)
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
    victims: Victims, how: str, disposition: Disposition, returncode: int
) -> None:
    met = victims.met[f"sent {how}"]
    assert met.returncode == returncode
    (failure,) = met.failures
    assert failure.source is FailureSource.SIGNAL
    assert failure.signal is not None
    assert (failure.signal.code, failure.signal.disposition) == (Code.USER, disposition)
    assert failure.signal.sender is not None
    assert (failure.signal.sender.pid, failure.signal.sender_uid) == (os.getpid(), os.getuid())


def test_a_deleted_file_keeps_its_name(victims: Victims, refusing: dict[str, Path]) -> None:
    met = victims.met["deleted"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.file, failure.deleted) == (str(refusing["ext4"].parent / "gone"), True)
    assert failure.errno_name == "ENOSPC"


def test_a_long_path_of_odd_bytes_is_whole(victims: Victims) -> None:
    met = victims.met["odd"]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert os.fsencode(failure.file) == os.fsencode(victims.files["odd"])
    assert failure.truncation is not None


def test_the_path_is_that_which_the_victim_sees(victims: Victims) -> None:
    for name in ("overlay", "namespace"):
        met = victims.met[name]
        assert met.returncode == -signal.SIGBUS
        (failure,) = met.failures
        assert failure.file == str(victims.files[name])
        assert (failure.fstype, failure.errno_name) == ("ext4", "ENOSPC")
    (failure,) = victims.met["overlay"].failures
    assert failure.mountpoint == str(victims.files["upper"])
