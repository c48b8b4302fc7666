"""What files may ask for is told to the byte, however they are backed."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.live.guest import eventually, run
from tests.live.risks import FILESYSTEMS, MIB, look, mounted, sparse
from tracer.mappings.risk import Demand, LimitKind, RiskState
from tracer.model.filesystems import rules

PAGE = mmap.PAGESIZE
#: Pages: all of a file, those written to, those preallocated.
ALL, WRITTEN, GIVEN = 127, 31, 13
PLAIN = [name for name in FILESYSTEMS if name != "btrfs-compressed"]


class Places(dict[str, Path]):
    """Where the filesystems are, each mounted when it is asked for first."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        super().__init__()
        self._stack = stack

    def __missing__(self, name: str) -> Path:
        self[name] = self._stack.enter_context(mounted(f"b-{name}", FILESYSTEMS[name]))
        return self[name]


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    with contextlib.ExitStack() as stack:
        yield Places(stack)


@contextmanager
def mapped(path: Path, length: int = 0, offset: int = 0) -> Iterator[mmap.mmap]:
    with path.open("rb+") as stream, closing(mmap.mmap(stream.fileno(), length, offset=offset)) as memory:
        memory.madvise(mmap.MADV_RANDOM)  # no large folio, which would ask for more than what is written
        yield memory


def demand(path: Path) -> Demand:
    return look(os.getpid(), path)[1]


def asked(path: Path) -> tuple[int, int]:
    """Pages that are new, and that are rewritten."""
    found = demand(path)
    assert found.new % PAGE == found.rewrites % PAGE == 0
    return found.new // PAGE, found.rewrites // PAGE


def write(path: Path, pages: int, at: int = 0) -> None:
    with path.open("rb+") as stream:
        stream.seek(at * PAGE)
        stream.write(os.urandom(pages * PAGE))
        os.fsync(stream.fileno())


@pytest.mark.parametrize("name", PLAIN)
def test_a_sparse_file_asks_for_what_it_lacks(places: Places, name: str) -> None:
    again = rules(FILESYSTEMS[name].fstype).rewrites
    path = sparse(places[name] / "sparse", ALL * PAGE)
    with mapped(path) as memory:
        assert asked(path) == (ALL, 0)
        write(path, WRITTEN, at=40)
        assert asked(path) == (ALL - WRITTEN, WRITTEN * again)
        # What a first write was promised is not asked for again, whether it is placed yet or not.
        for page in range(GIVEN):
            memory[page * PAGE] = 1
        # A large folio is given space as a whole: up to the next extent, at most.
        new = asked(path)[0]
        assert ALL - WRITTEN - 40 <= new <= ALL - WRITTEN - GIVEN
        os.sync()
        assert asked(path) == (new, (ALL - new) * again)


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "ext3"])
def test_a_preallocated_file_asks_for_nothing_new(places: Places, name: str) -> None:
    again = rules(FILESYSTEMS[name].fstype).rewrites
    path = sparse(places[name] / "given", ALL * PAGE)
    with path.open("rb+") as stream:
        os.posix_fallocate(stream.fileno(), 5 * PAGE, GIVEN * PAGE)
    with mapped(path):
        assert asked(path) == (ALL - GIVEN, GIVEN * again)


@pytest.mark.parametrize("name", PLAIN)
def test_only_what_is_mapped_counts_and_nothing_twice(places: Places, name: str) -> None:
    path = sparse(places[name] / "parts", ALL * PAGE)
    with mapped(path, 7 * PAGE, 2 * PAGE), mapped(path, 7 * PAGE, 5 * PAGE), mapped(path, 3 * PAGE, 20 * PAGE):
        assert asked(path) == (13, 0)


def test_the_last_block_counts_as_far_as_it_goes(places: Places) -> None:
    for name, block in (("ext4", 4096), ("ext4-1k", 1024), ("xfs", 4096), ("tmpfs", 4096)):
        path = sparse(places[name] / "short", PAGE + 100)
        with mapped(path):
            assert demand(path).new == PAGE + block, name


@pytest.mark.parametrize("name", ["xfs", "btrfs"])
def test_shared_extents_are_new_again(places: Places, name: str) -> None:
    path, copy = sparse(places[name] / "original", ALL * PAGE), places[name] / "copy"
    write(path, WRITTEN, at=3)
    run("cp", "--reflink=always", str(path), str(copy))
    os.sync()
    with mapped(path):
        assert asked(path) == (ALL, 0)
        copy.unlink()
        os.sync()
        if name == "xfs":  # which frees the extents of a deleted file some time after
            assert eventually(lambda: asked(path) == (ALL - WRITTEN, 0))


def test_a_snapshot_shares_everything(places: Places) -> None:
    place = places["btrfs"]
    run("btrfs", "subvolume", "create", str(place / "volume"))
    path = sparse(place / "volume" / "file", ALL * PAGE)
    write(path, WRITTEN)
    with mapped(path):
        assert asked(path) == (ALL - WRITTEN, WRITTEN)
        run("btrfs", "subvolume", "snapshot", str(place / "volume"), str(place / "snapshot"))
        assert asked(path) == (ALL, 0)


def test_files_of_two_subvolumes_with_one_inode_number_are_two(places: Places) -> None:
    place = places["btrfs"]
    paths = []
    for name, pages in (("one", 5), ("two", 7)):
        run("btrfs", "subvolume", "create", str(place / name))
        paths.append(sparse(place / name / "file", pages * PAGE))
    assert paths[0].stat().st_ino == paths[1].stat().st_ino
    with mapped(paths[0]), mapped(paths[1]):
        assert [asked(path)[0] for path in paths] == [5, 7]


def test_compressed_extents_are_rewritten_at_full_size(places: Places) -> None:
    path = sparse(places["btrfs-compressed"] / "zeros", ALL * PAGE)
    with path.open("rb+") as stream:
        stream.write(bytes(WRITTEN * PAGE))
        os.fsync(stream.fileno())
    with mapped(path):
        assert asked(path) == (ALL - WRITTEN, WRITTEN)


def test_data_that_live_in_the_inode_need_a_block(places: Places) -> None:
    path = places["btrfs"] / "tiny"
    path.write_bytes(b"x" * 1000)
    os.sync()
    with mapped(path):
        assert asked(path) == (1, 0)


def test_a_file_of_an_overlay_asks_the_filesystem_of_its_upper_directory(places: Places) -> None:
    base = places["ext4"]
    for directory in ("lower", "upper", "work", "overlay"):
        (base / directory).mkdir()
    (base / "lower" / "file").write_bytes(b"x" * PAGE)
    options = f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work"
    run("modprobe", "overlay")
    run("mount", "-t", "overlay", "-o", options, "overlay", str(base / "overlay"))
    try:
        path = base / "overlay" / "file"
        with path.open("rb+") as stream:
            stream.truncate(ALL * PAGE)
        with mapped(path):
            found = demand(path)
            assert (found.place.fstype, found.place.mountpoint) == ("ext4", str(base))
            assert found.new == (ALL - 1) * PAGE
    finally:
        run("umount", str(base / "overlay"))


_ELSEWHERE = """
import mmap, subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", "/mnt"], check=True)
with open("/mnt/file", "wb+") as stream:
    stream.truncate(7 * 4096)
    memory = mmap.mmap(stream.fileno(), 0)
    print("mapped", flush=True)
    sys.stdin.readline()
"""


def test_a_process_in_namespaces_of_its_own_is_seen_with_its_filesystem() -> None:
    child = subprocess.Popen(
        ["unshare", "--mount", "--pid", "--fork", sys.executable, "-c", _ELSEWHERE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "mapped\n"
        (pid,) = map(int, run("pgrep", "-P", str(child.pid)).split())
        found = look(pid, Path("/mnt/file"))[1]
    finally:
        child.communicate("\n")
    assert (found.place.fstype, found.place.mountpoint, found.new, found.free) == ("tmpfs", "/mnt", 7 * PAGE, MIB)


def test_a_thin_pool_is_a_limit_of_its_own_that_preallocation_does_not_pass(tmp_path: Path) -> None:
    pool_blocks, block = 128, 64 << 10
    loops = []
    for name, size in (("meta", 4 * MIB), ("data", pool_blocks * block)):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(size)
        loops.append(run("losetup", "-f", "--show", str(tmp_path / name)).strip())
    run("modprobe", "dm-thin-pool")
    table = f"0 {pool_blocks * block // 512} thin-pool {loops[0]} {loops[1]} {block // 512} 0 1 skip_block_zeroing"
    run("dmsetup", "create", "risk-pool", "--table", table)
    run("dmsetup", "mknodes")  # there is no udev
    run("dmsetup", "message", "risk-pool", "0", "create_thin 0")
    run("dmsetup", "create", "risk-thin", "--table", f"0 {64 * MIB // 512} thin /dev/mapper/risk-pool 0")
    run("dmsetup", "mknodes")
    place = tmp_path / "thin"
    place.mkdir()
    run("mkfs.ext4", "-q", "-b", "4096", "/dev/mapper/risk-thin")
    run("mount", "-o", "noinit_itable", "/dev/mapper/risk-thin", str(place))  # else blocks are taken behind our back
    try:
        path = sparse(place / "ledger", 16 * MIB)
        with path.open("rb+") as stream:
            os.posix_fallocate(stream.fileno(), 0, 4 * MIB)
        os.sync()
        with mapped(path):
            found, demanding = look(os.getpid(), path)
        used, _, total = run("dmsetup", "status", "risk-pool").split()[5].partition("/")
        (verdict,) = (verdict for verdict in found.verdicts if verdict.limit.kind is LimitKind.THIN_POOL)
        assert (int(total), verdict.limit.free) == (pool_blocks, (pool_blocks - int(used)) * block)
        assert (demanding.new, verdict.new, verdict.state) == (12 * MIB, 16 * MIB, RiskState.SHORT)
    finally:
        run("umount", str(place))
        run("dmsetup", "remove", "risk-thin")
        run("dmsetup", "remove", "risk-pool")
        run("losetup", "-d", *loops)


_AS_USER = f"""
import json, mmap, os, sys
from tracer.mappings.survey import survey
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: its /proc belongs to it
with open(sys.argv[1], "wb+") as stream:
    stream.truncate({ALL * PAGE})
    memory = mmap.mmap(stream.fileno(), 0)
    found = survey()
print(json.dumps([[(d.path, d.new) for d in found.demands], found.unseen]))
"""


def test_a_user_sees_the_users_own_processes_and_that_there_are_others(places: Places) -> None:
    path = places["ext4"] / "users" / "file"
    path.parent.mkdir()
    os.chown(path.parent, 65534, 65534)
    with mapped(sparse(places["ext4"] / "roots", PAGE)):
        demands, unseen = json.loads(run(sys.executable, "-c", _AS_USER, str(path)))
    assert demands == [[str(path), ALL * PAGE]]
    assert any("whose mappings may not be read" in sentence and "; root sees more." in sentence for sentence in unseen)
