"""Filesystems that became read-only under a mapping that may be written: which refuse, and which do not notice."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.live.bad_disk import BadDisk
from tests.live.guest import eventually, run
from tests.live.refusals import OFFSET, SIZE, Met, Refusal, Stage, prepare
from tests.live.reported import tell
from tracer.host.mounts import Mounts
from tracer.model.failures import Class, Disposition, FailureSource
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.session import Session

PAGE = 4096
SYSRQ = Path("/proc/sysrq-trigger")
#: Those that refuse after an emergency remount: two begin a transaction for each page.
REFUSE = {
    "ext3-remounted": Refusal("ext3-remounted", "ext3", "EROFS", size=32, late=True),
    "ext4-remounted": Refusal("ext4-remounted", "ext4", "EROFS", mount="loop,nodelalloc", size=32, late=True),
}
#: Those that take the page, and fail at writeback if at all.
ACCEPT = {
    "ext4-delalloc": Refusal("ext4-delalloc", "ext4", "", size=32, late=True),
    "xfs-remounted": Refusal("xfs-remounted", "xfs", "", size=320, late=True),
}


#: 5.10 lets f2fs_convert_inline_inode look whether there is anything to convert before it asks.
(ACCEPT if os.uname().release.startswith("5.10.") else REFUSE)["f2fs-remounted"] = Refusal(
    "f2fs-remounted", "f2fs", "", size=64, late=True
)
#: What returns the errno.
INNER = {
    "ext3": "ext4_journal_check_start",
    "ext4": "ext4_journal_check_start",
    "f2fs": "f2fs_convert_inline_inode",
    "btrfs": "btrfs_update_time",
}


@dataclass
class Story:
    """What all victims met on one backend, and with which exit code those ended that met nothing."""

    met: dict[str, Met] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    remount: subprocess.CompletedProcess[str] | None = None
    seen: set[int] = field(default_factory=set)


def _writable() -> set[str]:
    """Mount points of filesystems on devices that may be written."""
    return {m.mountpoint for m in Mounts.read() if m.source.startswith("/dev/") and "rw" in m.super_options}


def _emergencies() -> int:
    return run("dmesg").count("Emergency Remount complete")


@contextmanager
def emergency() -> Iterator[None]:
    """Every filesystem on a device made read-only, whoever writes to it; afterwards they are as before."""
    before, number = _writable(), _emergencies()
    SYSRQ.write_text("u")
    assert eventually(lambda: _emergencies() > number)
    try:
        yield
    finally:
        for each in before:
            with suppress(AssertionError):  # one that had an error stays as it is
                run("mount", "-o", "remount,rw", each)


def _freeze_subvolume(place: Path, _pid: int) -> None:
    run("btrfs", "property", "set", "-ts", str(place), "ro", "true")


def _lose(disk: BadDisk) -> None:
    """Let the disk fail, and let the filesystem notice."""
    disk.fail()
    with suppress(OSError):
        (disk.place / "notice").touch()
    subprocess.run(["sync", "-f", str(disk.place)], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture(scope="session")
def story(request: pytest.FixtureRequest, backend: Backend) -> Iterator[Story]:
    """Let every victim run under one watch, and print what was reported of each."""
    told = Story()
    for name, refusal in (REFUSE | ACCEPT).items():
        told.files[name] = prepare(refusal, f"-{backend}")
    top = prepare(Refusal("btrfs-subvolume-ro", "btrfs", "EROFS", size=160, late=True), f"-{backend}").parent
    run("btrfs", "subvolume", "create", str(top / "volume"))
    told.files["btrfs-subvolume-ro"] = top / "volume" / "file"
    told.files["btrfs-subvolume-ro"].touch()
    told.files["busy"] = prepare(Refusal("busy", "ext4", "", size=32, late=True), f"-{backend}")
    disk = BadDisk(f"btrfs-lost-{backend}", "btrfs", 160)
    with Session(Options(backend, every_errno=True)) as session:
        stage = Stage(session)

        begun, said = {}, {}
        for name in ("busy", *REFUSE, *ACCEPT):
            begun[name] = process = stage.begin("store", told.files[name], SIZE, OFFSET)
            assert process.stdout is not None
            said[name] = process.stdout.readline()
        told.remount = subprocess.run(
            ["mount", "-o", "remount,ro", told.files["busy"].parent], capture_output=True, text=True, check=False
        )
        begun["busy"].communicate("\n", timeout=300)
        with emergency():
            assert not {str(told.files[name].parent) for name in (*REFUSE, *ACCEPT)} & _writable()
            for name in ACCEPT:
                begun[name].communicate("\n", timeout=300)
            for name in REFUSE:
                told.met[name] = stage.end(begun[name], [said[name]])
        told.accepted |= {name: begun[name].returncode for name in ("busy", *ACCEPT)}
        name = "btrfs-subvolume-ro"
        freeze = partial(_freeze_subvolume, top / "volume")
        told.met[name] = stage.victim("rewrite", told.files[name], SIZE, OFFSET, meanwhile=freeze)
        begun["btrfs-lost"] = process = stage.begin("rewrite", disk.file, SIZE, OFFSET)
        assert process.stdout is not None
        process.stdout.readline()
        _lose(disk)
        process.communicate("\n", timeout=300)
        told.accepted["btrfs-lost"] = process.returncode
        final = session.finish()
        told.seen = stage.seen() & {begun[name].pid for name in told.accepted}
    assert [f"{hook.name}: {hook.detail}" for hook in final.hooks if not hook.attached] == []
    tell(request, backend, told.met)
    yield told


@pytest.mark.parametrize("name", [*REFUSE, "btrfs-subvolume-ro"])
def test_a_read_only_filesystem_refuses_with_erofs(story: Story, name: str) -> None:
    met = story.met[name]
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, failure.pid, failure.comm) == (FailureSource.PAGE_MKWRITE, met.pid, "victim")
    assert (failure.file, failure.offset) == (str(story.files[name]), OFFSET // PAGE * PAGE)
    assert (failure.errno_name, failure.errno_from) == ("EROFS", INNER[name.partition("-")[0]])
    assert failure.signal is not None
    assert (failure.signal.disposition, failure.signal.address) == (Disposition.FATAL, met.address)
    diagnosis = met.explained.diagnosis
    assert (diagnosis.kind, diagnosis.errno, diagnosis.inferred_from) == (Class.REFUSED, "EROFS", "")
    state = met.explained.state
    assert (state.read_only, state.subvolume_read_only) == (name in REFUSE, name not in REFUSE)


@pytest.mark.parametrize("name", [*ACCEPT, "btrfs-lost"])
def test_others_take_the_page_all_the_same(story: Story, name: str) -> None:
    assert story.accepted[name] == 0
    assert story.seen == set()


def test_a_filesystem_with_a_writable_mapping_is_not_remounted_read_only(story: Story) -> None:
    assert story.remount is not None
    assert story.remount.returncode == 32
    assert "busy" in story.remount.stderr
    assert story.accepted["busy"] == 0
