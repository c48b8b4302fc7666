"""How files are backed and what filesystems have left, on what this machine has: memory filesystems."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tracer.host import space as space_module
from tracer.host.extents import Backing, _kind, backing
from tracer.host.space import huge_cgroup_free, huge_cgroup_refusals, space
from tracer.host.thin import _dmsetup, free_of, pool_of

SHM = Path("/dev/shm")
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def memory_file() -> Iterator[int]:
    """A file on tmpfs, which has holes and no FIEMAP."""
    if not SHM.is_dir():
        pytest.skip("needs /dev/shm")
    with tempfile.TemporaryFile(dir=SHM) as stream:
        yield stream.fileno()


def test_holes_and_data_are_told_apart_within_the_ranges(memory_file: int) -> None:
    os.truncate(memory_file, 20 * PAGE)
    os.pwrite(memory_file, b"x" * PAGE, 5 * PAGE)
    os.pwrite(memory_file, b"x" * PAGE * 2, 11 * PAGE)

    def of(*ranges: tuple[int, int]) -> tuple[int, int]:
        found = backing(memory_file, [(a * PAGE, b * PAGE) for a, b in ranges], 20 * PAGE, PAGE)
        assert found == Backing(holes=found.holes, written=found.written)
        return found.holes // PAGE, found.written // PAGE

    assert of((0, 20)) == (17, 3)
    assert of((0, 400)) == (17, 3)  # nothing is to be had beyond the end
    assert of((6, 12), (12, 13)) == (5, 2)
    assert of((30, 40)) == (0, 0)
    assert of() == (0, 0)


def test_the_last_page_counts_to_the_end_of_its_block(memory_file: int) -> None:
    os.truncate(memory_file, PAGE + 1)
    assert backing(memory_file, [(0, 4 * PAGE)], PAGE + 1, PAGE).holes == 2 * PAGE
    assert backing(memory_file, [(0, 4 * PAGE)], PAGE + 1, 1024).holes == PAGE + 1024


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (0x1, "written"),
        (0x1000, "written"),
        (0x800, "unwritten"),
        (0x2 | 0x4, "promised"),
        (0x2000, "shared"),
        (0x2000 | 0x8, "shared"),
        (0x2000 | 0x800, "shared"),
        (0x8, "encoded"),
        (0x200 | 0x100, "holes"),
    ],
)
def test_extents_are_sorted_by_what_a_write_to_them_needs(flags: int, kind: str) -> None:
    assert _kind(flags) == kind


def test_what_is_left_of_a_memory_filesystem(memory_file: int) -> None:
    status = os.fstatvfs(memory_file)
    left = space(memory_file, "tmpfs", 0)
    assert left.block == PAGE
    assert left.free == left.free_to_root
    assert abs(left.free - status.f_bavail * PAGE) < 1 << 30 or not status.f_blocks


def test_the_tightest_cgroup_above_rules(tmp_path: Path) -> None:
    def limit(directory: Path, most: str, used: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hugetlb.2MB.max").write_text(f"{most}\n")
        (directory / "hugetlb.2MB.current").write_text(f"{used}\n")

    limit(tmp_path / "a", "10485760", 4194304)
    limit(tmp_path / "a/b", "8388608", 0)
    limit(tmp_path / "a/b/c", "max", 0)
    assert huge_cgroup_free(str(tmp_path), "/a/b/c", 2 << 20) == ("/a", 6291456)
    assert huge_cgroup_free(str(tmp_path), "/none", 2 << 20) is None
    assert huge_cgroup_free(str(tmp_path), "/a/b/c", 1 << 30) is None


def test_the_pool_of_huge_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = tmp_path / "hugepages-2048kB"
    pool.mkdir()
    for name, number in (("nr", 11), ("free", 7), ("resv", 3), ("surplus", 1), ("nr_overcommit", 3)):
        (pool / f"{name}_hugepages").write_text(f"{number}\n")
    monkeypatch.setattr(space_module, "_HUGE", tmp_path)
    assert space_module.huge_pages_free(2 << 20, unreserved=False) == (9 * (2 << 20), 11 * (2 << 20))
    assert space_module.huge_pages_free(2 << 20, unreserved=True) == (6 * (2 << 20), 11 * (2 << 20))
    assert space_module.huge_pages_free(1 << 30, unreserved=True) is None


def test_a_thin_volume_names_its_pool_and_the_pool_what_is_free() -> None:
    assert pool_of("0 262144 thin 254:2 7\n") == "254:2"
    assert pool_of("0 100 linear 8:1 0\n100 100 linear 8:2 0\n") is None
    assert pool_of("") is None
    table = "0 65536 thin-pool 7:0 7:1 128 0 2 skip_block_zeroing error_if_no_space"
    status = "0 65536 thin-pool 1 12/4161 34/512 - rw no_discard_passdown error_if_no_space - 1024"
    assert free_of(table, status) == (512 - 34) * 65536
    assert free_of(table, "0 65536 thin-pool Fail") is None
    assert free_of("0 10 linear 8:1 0 0", status) is None
    assert free_of("", "") is None


def test_no_dmsetup_of_the_callers_path_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "dmsetup"
    program.write_text(f"#!/bin/sh\n: > {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with suppress(OSError):
        _dmsetup("table", "254:0")
    assert not (tmp_path / "ran").exists()


def test_what_the_limit_of_a_cgroup_has_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "hugetlb.2MB.events").write_text("max 7\n")
    assert huge_cgroup_refusals(str(tmp_path), "/a", 2 << 20) == 7
    assert huge_cgroup_refusals(str(tmp_path), "/a", 1 << 30) == 0
    assert huge_cgroup_refusals(str(tmp_path), "/none", 2 << 20) == 0
