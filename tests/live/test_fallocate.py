"""What fallocate keeps of its promise, on each filesystem."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

import pytest

from tests.live.risks import FILESYSTEMS, MIB, mounted, writer, written
from tracer.model.filesystems import Fallocate, rules

PAGE = mmap.PAGESIZE

_RELEASE = tuple(map(int, os.uname().release.split(".")[:2]))


def _until_full(place: Path) -> None:
    """Leave nothing free."""
    with (place / "filler").open("wb") as stream:
        for size in (64 * MIB, MIB, PAGE):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(stream.fileno(), os.fstat(stream.fileno()).st_size, size)
    os.sync()


@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs", "f2fs", "tmpfs"])
def test_fallocate_protects_where_the_table_says_so(name: str) -> None:
    kind = FILESYSTEMS[name]
    with mounted(f"p-{name}", kind) as place:
        path = place / "ledger"
        with path.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, 4 * MIB)
        _until_full(place)
        with writer(path) as process:
            number, outcome = written(process)
    print(f"\nFALLOCATE {os.uname().release} {name}: {number} {outcome}", flush=True)
    if rules(kind.fstype).fallocate is Fallocate.PROTECTS or _RELEASE >= (6, 18):
        assert (number, outcome) == (4 * MIB, "written")
    else:
        assert (number, outcome) == (0, "refused")
