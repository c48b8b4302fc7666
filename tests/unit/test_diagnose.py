"""Diagnosis: what the kernel said is told apart from what was concluded, and each class has its remedy."""

from __future__ import annotations

import errno
import re
from dataclasses import replace

import pytest
from failure_samples import FULL, REFUSED, ROOMY, refused

from tracer.diagnosis.classes import decide
from tracer.diagnosis.diagnose import Diagnosis
from tracer.diagnosis.diagnose import diagnose as diagnose_decided
from tracer.model.failures import (
    Actor,
    Class,
    Code,
    Disposition,
    Fact,
    Failure,
    FailureSource,
    Signal,
    Truncation,
    code_of,
)
from tracer.model.host_state import PARTLY, ChunkState, FileState, HostState, HugeState, QuotaState


def diagnose(failure: Failure, state: HostState) -> Diagnosis:
    """Decide a failure that was made up here, and diagnose it."""
    return diagnose_decided(decide(failure), state)


def test_an_errno_that_was_seen_is_not_inferred() -> None:
    found = diagnose(refused(errno.ENOSPC), HostState(space=FULL))
    assert (found.kind, found.errno, found.inferred_from) == (Class.REFUSED, "ENOSPC", "")
    assert "posix_fallocate" in found.remedy
    assert found.check == "df -h /srv"


@pytest.mark.parametrize(
    ("changes", "state", "name", "source"),
    [
        ({"facts": Fact.SWAPFILE}, HostState(), "ETXTBSY", "S_SWAPFILE"),
        ({"facts": Fact.IMMUTABLE}, HostState(), "EPERM", "S_IMMUTABLE"),
        ({"facts": Fact.READ_ONLY}, HostState(), "EROFS", "SB_RDONLY"),
        ({}, HostState(shut_down=True), "EIO", "shut down"),
        ({}, HostState(quotas=(QuotaState("user", 7, 0, 4096),), space=FULL), "EDQUOT", "a quota"),
        ({}, HostState(space=FULL), "ENOSPC", "statfs"),
    ],
)
def test_an_errno_that_was_not_seen_names_what_it_was_inferred_from(
    changes: dict[str, Fact], state: HostState, name: str, source: str
) -> None:
    found = diagnose(replace(REFUSED, **changes), state)  # type: ignore[arg-type]
    assert found.errno == name
    assert source in found.inferred_from


def test_nothing_is_concluded_from_nothing() -> None:
    found = diagnose(REFUSED, HostState(space=ROOMY))
    assert (found.kind, found.errno, found.inferred_from) == (Class.REFUSED, "", "")
    assert "No function was seen" in found.cause


def test_a_quota_is_named_with_whose_it_is() -> None:
    state = HostState(quotas=(QuotaState("user", 7, 4096, 8192), QuotaState("project", 42, 0, 4096)), space=ROOMY)
    found = diagnose(refused(errno.EDQUOT), state)
    assert "project 42" in found.cause
    assert "project 42" in found.remedy


def test_a_project_of_xfs_gets_enospc_for_its_quota() -> None:
    state = HostState(quotas=(QuotaState("project", 42, 0, 4096),), space=FULL)
    found = diagnose(refused(errno.ENOSPC, fstype="xfs"), state)
    assert found.errno == "ENOSPC"
    assert "quota of project 42" in found.cause


@pytest.mark.parametrize(
    ("number", "word"),
    [(errno.EROFS, "read-only"), (errno.EIO, "metadata"), (errno.ESTALE, "stale"), (errno.ENOMEM, "memory")],
)
def test_other_errnos_are_kept_apart(number: int, word: str) -> None:
    found = diagnose(refused(number), HostState())
    assert found.errno == errno.errorcode[number]
    assert word in found.cause


def test_a_page_beyond_the_end_names_the_truncating_process() -> None:
    cut = Truncation(REFUSED.time_ns - 2_000_000, 100, Actor(77, 78, "logrotate"), 0x4000)
    failure = replace(REFUSED, source=FailureSource.FAULT, facts=Fact.BEYOND_END, size=100, write=False, truncation=cut)
    found = diagnose(failure, HostState())
    assert found.kind is Class.BEYOND_END
    assert "logrotate[77]" in found.cause
    assert "from 16.0 KiB to 100 B 2.0ms ago" in found.cause
    nobody = diagnose(replace(failure, truncation=None), HostState())
    assert "Nobody was seen" in nobody.cause


@pytest.mark.parametrize(
    ("size", "cut", "offset", "blamed"),
    [
        (0, (0x4000, 0), 0x3000, True),
        (0, (0x4000, 0), 0, True),
        (0x1000, (0x4000, 0x1000), 0x1000, True),
        (0, (0x3001, 0), 0x3000, True),
        # never in the file, since it never was so large
        (0, (0x3000, 0), 0x3000, False),
        (100, (0x3000, 100), 0x7000, False),
        # grown again and shortened by somebody else who was not seen
        (0, (0x4000, 0x2000), 0x1000, False),
    ],
)
def test_only_a_page_between_the_new_end_and_the_old_one_is_blamed_on_who_cut_the_file(
    size: int, cut: tuple[int, int], offset: int, blamed: bool
) -> None:
    truncation = Truncation(REFUSED.time_ns - 72 * 3600 * 10**9, cut[1], Actor(99, 99, "cp"), cut[0])
    changes = {"facts": Fact.BEYOND_END, "size": size, "offset": offset, "truncation": truncation}
    found = diagnose(replace(REFUSED, source=FailureSource.FAULT, **changes), HostState())  # type: ignore[arg-type]
    assert ("cp[99] had cut it" in found.cause, "cp[99]" in found.remedy) == (blamed, blamed)
    assert ("Nobody was seen to cut off this page" in found.cause) != blamed


def test_a_fault_within_the_file_is_a_media_error() -> None:
    seen = diagnose(refused(errno.EIO, source=FailureSource.FAULT), HostState())
    assert (seen.kind, seen.errno, seen.inferred_from) == (Class.MEDIA, "EIO", "")
    unseen = diagnose(replace(REFUSED, source=FailureSource.FAULT), HostState())
    assert unseen.errno == "EIO"
    assert unseen.inferred_from.startswith("the fault handler")


def test_a_write_to_a_dax_mapping_is_refused_by_fault() -> None:
    failure = refused(errno.ENOSPC, source=FailureSource.FAULT, facts=Fact.DAX_WRITE)
    found = diagnose(failure, HostState(space=FULL))
    assert (found.kind, found.errno, found.inferred_from) == (Class.REFUSED, "ENOSPC", "")
    unseen = diagnose(replace(failure, errno=0, kernel_error=0), HostState(space=ROOMY))
    assert (unseen.kind, unseen.errno) == (Class.REFUSED, "")


def test_a_file_that_the_server_lost_is_stale() -> None:
    found = diagnose(refused(errno.ESTALE, source=FailureSource.FAULT, fstype="nfs4"), HostState())
    assert (found.kind, found.errno) == (Class.MEDIA, "ESTALE")
    assert "stale" in found.cause


def test_nilfs2_refuses_without_an_errno_only_for_want_of_segments() -> None:
    failure = replace(REFUSED, fstype="nilfs2", handler="nilfs_page_mkwrite")
    found = diagnose(failure, HostState(space=ROOMY))
    assert (found.errno, found.inferred_from.partition(",")[0]) == ("ENOSPC", "nilfs_page_mkwrite")
    # Where nothing could be hooked, an errno may just not have been seen.
    assert diagnose(replace(failure, inferred=True), HostState(space=ROOMY)).errno == ""


def test_btrfs_tells_metadata_from_data() -> None:
    state = HostState(space=ROOMY, chunks=(ChunkState("data", 1 << 30, 1 << 29), ChunkState("metadata", 1 << 25, 0)))
    failure = refused(errno.ENOSPC, fstype="btrfs", errno_from="btrfs_delalloc_reserve_metadata")
    found = diagnose(failure, state)
    assert "no space left for metadata" in found.cause
    assert "512 MiB free" in found.cause
    assert found.run == "btrfs balance start -dusage=10 /srv"


def test_a_filesystem_that_is_known_to_be_shut_down_is_called_so() -> None:
    failure = refused(errno.EIO, fstype="xfs")
    assert "or could not read" in diagnose(failure, HostState(mountpoint="/data")).cause
    known = diagnose(failure, HostState(mountpoint="/data", shut_down=True)).cause
    assert known == "/data is shut down, and refuses every write."


def test_a_subvolume_that_was_made_read_only_is_told_from_the_filesystem() -> None:
    failure = refused(errno.EROFS, errno_from="btrfs_update_time", fstype="btrfs")
    found = diagnose(failure, HostState(mountpoint="/data", subvolume_read_only=True))
    assert (found.errno, found.inferred_from) == ("EROFS", "")
    assert found.cause.startswith("The file's subvolume was made read-only")
    assert "error" in diagnose(failure, HostState(mountpoint="/data", read_only=True, subvolume_read_only=True)).cause


def test_a_full_tmpfs_names_its_size_and_container() -> None:
    failure = refused(errno.ENOSPC, source=FailureSource.FAULT, fstype="tmpfs")
    found = diagnose(failure, HostState(mountpoint="/dev/shm", limit="65536k", container="0123456789ab"))
    assert found.kind is Class.TMPFS_FULL
    assert "size=65536k" in found.cause
    assert "0123456789ab" in found.remedy
    assert "--shm-size" in found.remedy


def test_huge_pages_tell_the_pool_from_the_cgroup() -> None:
    failure = replace(REFUSED, source=FailureSource.HUGETLB, fstype="hugetlbfs")
    pool = diagnose(failure, HostState(huge=HugeState(2 << 20, 8, 0, 0)))
    assert pool.kind is Class.HUGETLB
    assert pool.run == "echo 9 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    limited = diagnose(failure, HostState(huge=HugeState(2 << 20, 8, 5, 0, "/pg", 0)))
    assert "/pg may take no more" in limited.cause
    assert "without a reservation" not in limited.cause


def test_a_cgroup_whose_victim_has_given_its_huge_pages_back_is_still_the_cause() -> None:
    failure = replace(REFUSED, source=FailureSource.HUGETLB, fstype="hugetlbfs")
    gone = diagnose(failure, HostState(huge=HugeState(2 << 20, 8, 8, 0, "/pg", 8 << 20, 1)))
    assert gone.cause.startswith("The limit of cgroup /pg refused a huge page; now 8.0 MiB are left.")
    assert gone.remedy.startswith("Raise hugetlb.*.max of that cgroup.")
    for huge in (HugeState(2 << 20, 8, 8, 0, "/pg", 8 << 20, 0), HugeState(2 << 20, 8, 3, 3, "/pg", 8 << 20, 1)):
        assert diagnose(failure, HostState(huge=huge)).remedy.startswith("Raise the pool.")


def test_a_signal_that_was_sent_has_nothing_to_do_with_files() -> None:
    signal = Signal(Code.USER, Disposition.FATAL, 0, Actor(9, 9, "kill"), 1000)
    found = diagnose(replace(REFUSED, source=FailureSource.SIGNAL, signal=signal), HostState())
    assert (found.kind, found.errno) == (Class.SENT, "")
    assert "kill[9], user 1000" in found.cause


def test_who_is_gone_is_not_to_be_looked_for() -> None:
    itself = Signal(Code.SENT, Disposition.FATAL, 0, Actor(REFUSED.pid, 1, "sh"), 0)
    found = diagnose(replace(REFUSED, source=FailureSource.SIGNAL, signal=itself), HostState())
    assert (found.kind, found.check, "to itself" in found.cause) == (Class.SENT, "", True)
    deleted = replace(REFUSED, source=FailureSource.FAULT, facts=Fact.BEYOND_END, size=0, deleted=True)
    assert diagnose(deleted, HostState()).check == ""
    assert code_of(-1000 & 0xFFFFFFFF) is Code.SENT


def test_a_signal_that_is_raised_again_is_a_class_of_its_own() -> None:
    itself = Signal(Code.USER, Disposition.FATAL, 0, Actor(REFUSED.pid, 1, "sh"), 0)
    sent = replace(REFUSED, source=FailureSource.SIGNAL, signal=itself, kernel_error=0, fstype="")
    for facts, kind in ((Fact.NONE, Class.SENT), (Fact.AGAIN, Class.AGAIN)):
        failure = decide(replace(sent, facts=facts))
        assert (failure.verdict.kind, diagnose(failure, HostState()).kind) == (kind, kind)


@pytest.mark.parametrize(
    ("code", "number", "kind"),
    [(Code.MCEERR_AR, 4, Class.MEDIA), (Code.ADRALN, 1, Class.OTHER), (Code.KERNEL, 0x80, Class.OTHER)],
)
def test_other_signals(code: Code, number: int, kind: Class) -> None:
    signal = Signal(code, Disposition.FATAL, 0x1000)
    failure = replace(REFUSED, source=FailureSource.SIGNAL, kernel_error=number, signal=signal)
    assert diagnose(failure, HostState()).kind is kind


def test_names_are_escaped() -> None:
    cut = Truncation(REFUSED.time_ns, 0, Actor(77, 77, "\x1b[31mevil\n"), 0x4000)
    failure = replace(
        REFUSED, source=FailureSource.FAULT, facts=Fact.BEYOND_END, size=0, truncation=cut, file="/a\n\x1b]0;b"
    )
    found = diagnose(failure, HostState())
    assert all(text.isprintable() for text in (found.cause, found.remedy, *found.check.split("\n")))


def test_a_cgroup_is_named_so_that_a_shell_takes_it_as_one_word() -> None:
    check = diagnose(refused(errno.ENOMEM), HostState(cgroup_directory="/sys/fs/cgroup/x; rm -rf ~ #\x1b")).check
    assert check.startswith("cat $'/sys/fs/cgroup/x; rm -rf ~ #\\x1b/memory.events'\n")


def test_a_mount_of_another_namespace_is_remounted_there() -> None:
    failure = replace(REFUSED, source=FailureSource.FAULT, fstype="tmpfs", mountpoint="", handler="")
    found = diagnose(failure, HostState(mountpoint="/mnt/c", enter="nsenter -t 77 -m ", space=FULL))
    assert found.run == "nsenter -t 77 -m mount -o remount,size=1025m /mnt/c"
    assert found.check == "nsenter -t 77 -m df -h /mnt/c\nnsenter -t 77 -m du -ah /mnt/c | sort -h | tail"
    elsewhere = HostState(mountpoint="/mnt/c", enter="", entered_at="/srv/it's", space=FULL)
    assert diagnose(failure, elsewhere).run == """mount -o remount,size=1025m '/srv/it'"'"'s'"""


def test_no_command_has_anything_to_be_filled_in() -> None:
    """Not a name for a size, nor three dots, nor words for a mount point that is not known."""
    states = [HostState(), HostState(mountpoint="/m", enter=None), HostState(mountpoint="/m", space=FULL,
              chunks=(ChunkState("metadata", 1 << 25, 0),), subvolume_read_only=True,
              huge=HugeState(2 << 20, 8, 0, 0))]  # fmt: skip
    names = ("ENOSPC", "EDQUOT", "EROFS", "EIO", "ESTALE", "ENOMEM", "ETXTBSY", "EPERM")
    failures = [
        refused(getattr(errno, name), fstype=fstype, source=source, mountpoint="", errno_from=where)
        for name in names
        for fstype in ("ext4", "xfs", "btrfs", "tmpfs", "hugetlbfs", "nfs4")
        for source in (FailureSource.PAGE_MKWRITE, FailureSource.FAULT, FailureSource.HUGETLB)
        for where in ("ext4_da_reserve_space", "btrfs_start_transaction")
    ]
    for found in (diagnose(failure, state) for failure in failures for state in states):
        for text in (found.cause, found.remedy):
            assert "..." not in text and "'the filesystem'" not in text
        for line in f"{found.check}\n{found.run}".split("\n"):
            assert not re.search(r"\.\.\.|filesystem'|=[A-Z]+\b| [A-Z]+\b", line.replace("HardwareCorrupted", "")), line


@pytest.mark.parametrize("state", [HostState(mountpoint="/mnt/c", enter=None), HostState()])
def test_no_command_is_given_for_a_mount_that_nobody_is_known_to_have(state: HostState) -> None:
    failure = replace(REFUSED, source=FailureSource.FAULT, fstype="tmpfs", mountpoint="", handler="")
    found = diagnose(failure, state)
    assert "mount -o" not in found.remedy and found.remedy.startswith("Make the tmpfs larger.")
    assert found.check == ""
    space = diagnose(refused(errno.ENOSPC, mountpoint=""), state)
    assert (space.check, "mount" in space.remedy) == ("", False)


def test_a_command_about_a_file_has_the_path_that_leads_to_it_from_here() -> None:
    here, none = HostState(file_here="/mnt/e/it's"), HostState()
    cut = replace(REFUSED, source=FailureSource.FAULT, facts=Fact.BEYOND_END, size=0)
    flag = replace(REFUSED, facts=Fact.IMMUTABLE)
    stale = refused(errno.ESTALE, source=FailureSource.FAULT, fstype="nfs4")
    quoted = """'/mnt/e/it'"'"'s'"""
    assert diagnose(cut, here).check == f"stat {quoted}"
    assert (diagnose(flag, here).check, diagnose(flag, here).run) == (f"lsattr {quoted}", f"chattr -i {quoted}")
    assert diagnose(stale, here).check == f"nfsstat -m\nls -l {quoted}"
    assert [diagnose(one, none).check for one in (cut, flag, stale)] == ["", "", "nfsstat -m"]


def test_a_process_of_the_host_is_not_looked_for_from_a_container() -> None:
    signal = Signal(Code.USER, Disposition.FATAL, 0, Actor(9, 9, "kill"), 1000)
    failure = replace(REFUSED, source=FailureSource.SIGNAL, signal=signal)
    assert diagnose(failure, HostState()).check.endswith(" -p 9")
    assert diagnose(failure, HostState(host_pids=False)).check == ""


@pytest.mark.parametrize(
    ("fstype", "file", "words"),
    [
        ("ext4", FileState(1 << 20, 0, "hole"), "The page has no block on disk yet, and /srv"),
        ("ext4", FileState(1 << 20, 1024, PARTLY), "Part of the page has no block on disk yet, and /srv"),
        ("ext4", None, "The page needs a block on disk, and /srv"),
        ("btrfs", None, "The page needs a new block, whether it has one or not (copy on write), and /srv"),
        ("btrfs", FileState(1 << 20, 4096, "written"), "The page needs a new block, since its own is not written over"),
    ],
)
def test_what_a_page_has_is_said_only_where_it_is_known(fstype: str, file: FileState | None, words: str) -> None:
    found = diagnose(refused(errno.ENOSPC, fstype=fstype), HostState(space=FULL, file=file))
    assert found.cause.startswith(words)


def test_a_file_that_was_removed_meanwhile_may_be_what_made_room() -> None:
    failure = refused(errno.ENOSPC)
    assert "removed meanwhile" in diagnose(failure, HostState(space=ROOMY, file_gone=True)).cause
    assert "removed meanwhile" not in diagnose(failure, HostState(space=ROOMY)).cause
