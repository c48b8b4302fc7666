"""Causes that take more to set up: lost disks, cgroups, containers; and signals in all their forms."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.live.bad_disk import BadDisk
from tests.live.guest import cgroup, command, inside
from tests.live.refusals import OFFSET, SIZE, VICTIM, Met, Refusal, Stage, fill, prepare
from tests.live.reported import tell
from tracer.model.calls import Initiator
from tracer.model.failures import Class, Code, Disposition, FailureSource
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.session import Session

PAGE = 4096
_SYS_TGKILL, _SYS_SIGQUEUEINFO = 234, 129
_SI_QUEUE = -1
#: As Docker and Kubernetes name theirs.
CONTAINER = "4c01db0b339c" + "0123456789abcdef" * 3 + "cafe"


@dataclass
class Story:
    """What all victims met on one backend."""

    met: dict[str, Met] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    #: Those that did not meet what they were made to.
    failed: dict[str, AssertionError] = field(default_factory=dict)

    def of(self, name: str) -> Met:
        """What one met."""
        if name in self.failed:
            raise self.failed[name]
        return self.met[name]


@pytest.fixture(scope="session")
def full() -> Path:
    """A file on an ext4 without a free block, with a page of data and a hole."""
    file = prepare(Refusal("causes", "ext4", "ENOSPC", size=32, late=True))
    page = OFFSET // PAGE * PAGE
    with file.open("r+b") as stream:
        stream.seek(page)
        stream.write(b"x" * PAGE)
    os.sync()
    fill(file.parent)
    return file


def _queue(pid: int) -> None:
    info = (ctypes.c_int * 32)(signal.SIGBUS, 0, _SI_QUEUE, 0, os.getpid(), os.getuid())
    assert ctypes.CDLL(None).syscall(_SYS_SIGQUEUEINFO, pid, int(signal.SIGBUS), info) == 0


def _tgkill(pid: int) -> None:
    assert ctypes.CDLL(None).syscall(_SYS_TGKILL, pid, pid, int(signal.SIGBUS)) == 0


#: How a process sends it, with its si_code.
SENT: dict[str, tuple[Callable[[int], None], Code]] = {
    "sigqueue": (_queue, Code.QUEUE),
    "tgkill": (_tgkill, Code.TKILL),
}


def _lose(disk: BadDisk) -> Callable[[int], None]:
    """Let the disk fail when the victim has mapped its file, and let the filesystem notice."""

    def lose(_pid: int) -> None:
        disk.fail()
        with suppress(OSError):
            (disk.place / "notice").touch()
        subprocess.run(["sync", "-f", str(disk.place)], stderr=subprocess.DEVNULL, check=False)

    return lose


@pytest.fixture(scope="session")
def story(request: pytest.FixtureRequest, backend: Backend, full: Path) -> Iterator[Story]:
    """Let every victim run under one watch, and print what was reported of each."""
    told = Story()
    # Before the watch begins: what hooks a module's functions would be later than the victim.
    disks = {
        "ext4-lost": BadDisk(f"ext4-lost-{backend}", "ext4", 32, "nodelalloc"),
        "xfs-lost": BadDisk(f"xfs-lost-{backend}", "xfs", 320),
    }
    told.files = {name: disk.file for name, disk in disks.items()}
    with Session(Options(backend, every_errno=True)) as session:
        stage = Stage(session)

        def act(name: str, *arguments: object, count: int = 1, **how: Any) -> None:
            try:
                told.met[name] = stage.victim(*arguments, count=count, **how)
            except AssertionError as error:
                told.failed[name] = error

        for name, disk in disks.items():
            act(name, "rewrite", disk.file, SIZE, OFFSET, meanwhile=_lose(disk))
        hole = full.parent / "hole"
        for how, ignored in (("blocked", 0), ("ignored", 1)):
            act(how, "masked", hole, SIZE, OFFSET, ignored)
        act("nested", "nested", hole, SIZE, OFFSET, count=2)
        act("short", "read-from", full, SIZE, OFFSET // PAGE * PAGE, "/dev/zero", 0)
        act("direct", "read-from", hole, SIZE, OFFSET // PAGE * PAGE, full.parent / "filler", os.O_DIRECT)
        for how, (send, _) in SENT.items():
            act(how, "wait", "die", meanwhile=send, kill=True)
        act("uffd", "uffd")
        Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+hugetlb")
        Path("/proc/sys/vm/nr_hugepages").write_text("3")
        with cgroup(f"huge-{backend}", **{"hugetlb_2MB.max": "0"}) as place:
            act("hugetlb-cgroup", "hugetlb", wrapper=inside(place))
        Path("/proc/sys/vm/nr_hugepages").write_text("0")
        act("hugetlb-pool", "hugetlb")
        with cgroup(f"docker-{CONTAINER}.scope") as place:
            # Its main process lives on.
            begin = "mount -t tmpfs -o size=1m none /dev/shm; head -c 1M /dev/zero >/dev/shm/filler; : >/dev/shm/file"
            wrapper = inside(place, "unshare", "-m", "sh", "-c", f'{begin}; sleep 60 >&- & exec "$@"', "sh")
            act("container", "store", "/dev/shm/file", SIZE, OFFSET, wrapper=wrapper)
        final = session.finish()
    assert [f"{hook.name}: {hook.detail}" for hook in final.hooks if not hook.attached] == []
    tell(request, backend, told.met)
    yield told


@pytest.mark.parametrize("name", ["ext4-lost", "xfs-lost"])
def test_a_filesystem_that_lost_its_disk_refuses_what_was_read_before(story: Story, name: str) -> None:
    met = story.of(name)
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert failure.source is FailureSource.PAGE_MKWRITE
    assert (failure.pid, failure.file, failure.offset) == (met.pid, str(story.files[name]), OFFSET // PAGE * PAGE)
    assert failure.errno_name in ("EIO", "EROFS")
    assert met.explained.diagnosis.kind is Class.REFUSED
    assert met.explained.diagnosis.inferred_from == ""
    state = met.explained.state
    # One of ext4 is in no option or flag on 6.1, since a stable update, but EROFS without the flag tells it.
    assert state.shut_down or state.read_only


@pytest.mark.parametrize("how", ["blocked", "ignored"])
def test_a_fault_kills_though_its_signal_is_blocked_or_ignored(story: Story, how: str) -> None:
    met = story.of(how)
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert failure.signal is not None
    assert (failure.signal.code, failure.signal.disposition) == (Code.ADRERR, Disposition.FATAL)
    assert failure.overridden is Disposition(how)
    assert (failure.errno_name, failure.address) == ("ENOSPC", met.address)


def test_a_fault_in_the_handler_of_another_has_a_signal_of_its_own(story: Story) -> None:
    met = story.of("nested")
    assert met.returncode == 0
    told = [(failure.address, failure.offset, failure.signal and failure.signal.address) for failure in met.failures]
    page = OFFSET // PAGE * PAGE
    again = met.address + PAGE
    assert told == [(met.address, page, met.address), (again, page + PAGE, again)]
    assert {failure.errno_name for failure in met.failures} == {"ENOSPC"}


def test_a_read_that_fills_a_page_and_not_the_next_is_short(story: Story) -> None:
    met = story.of("short")
    assert f"{PAGE} 0" in met.lines
    (failure,) = met.failures
    assert (failure.signal, failure.initiator, failure.syscall) == (None, Initiator.KERNEL, 0)
    assert (failure.offset, failure.errno_name) == (OFFSET // PAGE * PAGE + PAGE, "ENOSPC")


def test_direct_io_into_a_refused_page_gets_efault(story: Story) -> None:
    met = story.of("direct")
    # 5.10 ends it as if the file had ended there.
    assert ("0 0" if os.uname().release.startswith("5.10.") else f"-1 {errno.EFAULT}") in met.lines
    (failure,) = met.failures
    assert (failure.signal, failure.syscall) == (None, 0)
    assert failure.initiator is Initiator.KERNEL
    assert (failure.offset, failure.errno_name) == (OFFSET // PAGE * PAGE, "ENOSPC")


@pytest.mark.parametrize("how", SENT)
def test_a_signal_names_its_sender_however_it_is_sent(story: Story, how: str) -> None:
    met = story.of(how)
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert failure.signal is not None
    assert (failure.source, failure.signal.code, failure.signal.disposition) == (
        FailureSource.SIGNAL, SENT[how][1], Disposition.FATAL,
    )  # fmt: skip
    assert failure.signal.sender is not None
    assert failure.signal.sender.pid == os.getpid()
    assert met.explained.diagnosis.kind is Class.SENT


def test_what_is_no_refusal_is_other(story: Story) -> None:
    met = story.of("uffd")
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert failure.signal is not None
    assert (failure.source, failure.signal.code, failure.address) == (FailureSource.SIGNAL, Code.ADRERR, met.address)
    assert failure.signal.module.startswith("victim+0x")
    diagnosis = met.explained.diagnosis
    assert (diagnosis.kind, diagnosis.errno) == (Class.OTHER, "")
    assert "not for a page of a file" in diagnosis.cause


def test_huge_pages_may_end_with_the_cgroup_or_with_the_pool(story: Story, backend: Backend) -> None:
    for name, word in (
        ("hugetlb-cgroup", f"The cgroup /huge-{backend} may take no more"),
        ("hugetlb-pool", "The pool"),
    ):
        met = story.of(name)
        assert met.returncode == -signal.SIGBUS
        (failure,) = met.failures
        assert failure.errno_name == "ENOSPC"
        assert failure.errno_from in ("alloc_hugetlb_folio", "alloc_huge_page")
        huge = met.explained.state.huge
        assert huge is not None
        assert (huge.page, huge.free) == (2 << 20, 3 if name == "hugetlb-cgroup" else 0)
        assert word in met.explained.diagnosis.cause


def test_a_container_is_named_and_its_own_tmpfs_read_though_the_victim_is_gone(story: Story) -> None:
    met = story.of("container")
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.file, failure.fstype, failure.errno_name) == ("/dev/shm/file", "tmpfs", "ENOSPC")
    state, diagnosis = met.explained.state, met.explained.diagnosis
    assert state.container.startswith(CONTAINER[:12])
    assert (state.mountpoint, state.limit) == ("/dev/shm", "1024k")
    assert state.space is not None
    assert (state.space.total, state.space.free) == (1 << 20, 0)
    assert diagnosis.kind is Class.TMPFS_FULL
    assert "--shm-size" in diagnosis.remedy


def test_the_instruction_is_told_of_the_dead(story: Story) -> None:
    (failure,) = story.of("blocked").failures
    assert failure.signal is not None
    name, _, offset = failure.signal.module.partition("+")
    assert name == "victim"
    # A static program: its text is mapped from the file at a fixed distance.
    assert failure.ip - int(offset, 16) == 0x400000
    assert story.of("blocked").explained.state.module == failure.signal.module


def test_what_is_printed_has_the_state_of_the_filesystem(full: Path) -> None:
    shown = subprocess.run(
        command("sigbus", "--json", "--", VICTIM, "store", str(full.parent / "hole"), str(SIZE), str(OFFSET)),
        capture_output=True, text=True, input="\n", check=False,
    )  # fmt: skip
    (found,) = (json.loads(line) for line in shown.stdout.splitlines() if line.startswith("{"))
    host = found["host"]
    assert (host["mountpoint"], host["read_only"], host["shut_down"]) == (str(full.parent), False, False)
    assert host["space"]["free"] == 0
    assert host["module"].startswith("victim+0x")
    assert host["after_ns"] > 0
    assert (host["file"]["size"], host["file"]["backing"]) == (SIZE, "hole")
