"""What btrfs has left: its sysfs is a directory here, the devices' sizes are made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.host import btrfs
from tracer.host.quota import Quota
from tracer.model.host_state import ChunkState

MIB = 1 << 20


@pytest.fixture(autouse=True)
def filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(btrfs, "_SYSFS", tmp_path)
    monkeypatch.setattr(btrfs, "_filesystem", lambda fd: (1, "uuid"))
    monkeypatch.setattr(btrfs, "_without_chunk", lambda fd, highest: 3 * MIB)
    for kind, total, used in (("data", 100 * MIB, 40 * MIB), ("metadata", 8 * MIB, 7 * MIB)):
        place = tmp_path / "uuid" / "allocation" / kind
        place.mkdir(parents=True)
        numbers = {"total_bytes": total, "disk_total": total, "bytes_used": used, "bytes_may_use": 2 * MIB}
        for name in ("bytes_pinned", "bytes_reserved", "bytes_readonly"):
            numbers[name] = 0
        for name, number in numbers.items():
            (place / name).write_text(f"{number}\n")
    return tmp_path / "uuid"


def test_chunks_tell_data_from_metadata_and_never_less_than_nothing() -> None:
    assert btrfs.chunks(0) == (
        ChunkState("data", 100 * MIB, 58 * MIB),
        ChunkState("metadata", 8 * MIB, 0),
        ChunkState("unallocated", 3 * MIB, 3 * MIB),
    )
    assert btrfs.data_free(0) == 61 * MIB


def test_the_quota_is_the_one_with_the_least_left(filesystem: Path) -> None:
    group = filesystem / "qgroups" / "0_5"
    group.mkdir(parents=True)
    numbers = {
        "limit_flags": 3,
        "max_referenced": 10,
        "referenced": 4,
        "max_exclusive": 8,
        "exclusive": 5,
        "rsv_data": 1,
    }
    for name, number in numbers.items():
        (group / name).write_text(f"{number * MIB if number > 3 or name == 'rsv_data' else number}\n")
    assert btrfs.quota(0, 5) == Quota(free=2 * MIB, limit=8 * MIB)
    (group / "limit_flags").write_text("0\n")
    assert btrfs.quota(0, 5) is None
    assert btrfs.quota(0, 257) is None
