"""Paths that others name are followed by a process of its own, and no further than they should lead."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from failure_samples import REFUSED

from tracer.host import files
from tracer.host.mappings import Mapping
from tracer.host.mounts import Mounts
from tracer.host.opener import Opener
from tracer.host.reach import MountFinder
from tracer.host.state import _open, _open_file


@pytest.fixture
def opener() -> Iterator[Opener]:
    with closing(Opener()) as made:
        yield made


@contextmanager
def root_of(path: Path) -> Iterator[tuple[int, list[int]]]:
    """A directory as root, and the id of the mount that it is on."""
    descriptor = os.open(path, os.O_PATH)
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    try:
        yield descriptor, [int(line.split()[1]) for line in lines if line.startswith("mnt_id")]
    finally:
        os.close(descriptor)


def names(descriptor: int | None) -> bytes | None:
    """What a file says, and the end of its descriptor."""
    if descriptor is None:
        return None
    try:
        return os.read(descriptor, 100)
    finally:
        os.close(descriptor)


def test_a_file_is_found_under_its_name_and_inode_alone(tmp_path: Path, opener: Opener) -> None:
    name = os.fsdecode(b"a\xff b\n")
    (tmp_path / name).write_text("it")
    inode = (tmp_path / name).stat().st_ino
    with root_of(tmp_path) as (root, mounts):
        assert names(opener.file(root, f"/{name}", mounts, inode)) == b"it"
        assert names(opener.file(root, f"/../{name}", mounts, inode)) == b"it"  # no way out of the root
        assert opener.file(root, f"/{name}", mounts, inode + 1) is None
        assert opener.file(root, f"/{name}", [number + 1000 for number in mounts], inode) is None
        assert opener.file(root, "/none", mounts, inode) is None
        assert opener.file(root, "/\0", mounts, inode) is None


def test_no_link_is_followed(tmp_path: Path, opener: Opener) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real/file").write_text("it")
    (tmp_path / "link").symlink_to("real/file")
    (tmp_path / "way").symlink_to("real")
    inode = (tmp_path / "real/file").stat().st_ino
    with root_of(tmp_path) as (root, mounts):
        assert names(opener.file(root, "/real/file", mounts, inode)) == b"it"
        assert opener.file(root, "/link", mounts, inode) is None
        assert opener.file(root, "/way/file", mounts, inode) is None
        assert opener.directory(root, "/way", mounts) == (None, errno.ELOOP)
    with root_of(Path("/")) as (root, mounts), (tmp_path / "real/file").open() as stream:
        assert opener.file(root, f"/proc/{os.getpid()}/fd/{stream.fileno()}", mounts, inode) is None
        assert opener.mount_id(f"/proc/{os.getpid()}/root/") is None


def test_what_hangs_keeps_nobody_waiting_and_the_next_path_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("it")
    inode = (tmp_path / "file").stat().st_ino
    with closing(Opener(limit_s=0.2)) as opener, root_of(tmp_path) as (root, mounts):
        opener.start()
        assert opener._helper is not None
        os.kill(opener._helper.pid, signal.SIGSTOP)
        assert opener.file(root, "/file", mounts, inode) is None
        opener._limit_s = 60
        assert names(opener.file(root, "/file", mounts, inode)) == b"it"


#: A filesystem that only this process has, with a file; then another one with the same inode numbers over it.
_HIDDEN = """
mount -t tmpfs none /mnt; echo under > /mnt/file; ln -s file /mnt/link; echo; read -r _
mount -t tmpfs none /mnt; echo over > /mnt/file; echo; read -r _
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_filesystem_with_the_same_inode_number_is_not_asked() -> None:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _HIDDEN]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdin is not None and victim.stdout is not None
        victim.stdout.readline()
        there = Mounts.read(Path(f"/proc/{victim.pid}/mountinfo")).at("/mnt")
        inode = Path(f"/proc/{victim.pid}/root/mnt/file").stat().st_ino
        assert there is not None
        failure = replace(
            REFUSED, pid=victim.pid, dev=there.dev, inode=inode, fstype="tmpfs", file="/mnt/file", deleted=False
        )
        mapping = Mapping(victim.pid, 0, 4096, 0, True, there.dev, inode, "/mnt/file")
        found = []
        for _ in range(2):
            place = MountFinder(lambda failure: False).find(failure, ())
            assert place is not None
            directory, _ = _open(place)
            found.append((names(_open_file(failure, place)), directory is not None))
            found.append((names(files.open_quietly([mapping]) if len(found) == 1 else None), False))
            place.close()
            if directory is not None:
                os.close(directory)
            victim.stdin.write(b"\n")
            victim.stdin.flush()
            victim.stdout.readline()
    assert found == [(b"under\n", True), (b"under\n", False), (None, False), (None, False)]


def test_after_a_fork_each_process_has_its_own(tmp_path: Path) -> None:
    script = (
        "import os\nfrom tracer.host.opener import OPENER\n"
        "OPENER.start()\nfirst = OPENER._helper.pid\n"
        "if os.fork() == 0:\n    OPENER.start()\n    os._exit(OPENER._helper.pid == first)\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
