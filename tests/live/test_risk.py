"""What `risk` predicts comes true: the bytes that files may ask for, and the byte at which they are refused."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.live.guest import command
from tests.live.risks import FOLIO, MARGIN, MIB, Kind, look, mounted, sparse, writer, written
from tracer.mappings.risk import LimitKind, RiskState

NOBODY = 65534
PROJECT = 42

KINDS = {
    "ext4": Kind("ext4", 96, make="-b 4096 -m 0"),
    "ext4-reserve": Kind("ext4", 96, make="-b 4096 -m 5", user=NOBODY),
    "ext4-root": Kind("ext4", 96, LimitKind.ROOT_SPACE, make="-b 4096 -m 2"),
    "ext4-nodelalloc": Kind("ext4", 96, make="-b 4096 -m 0", options="nodelalloc"),
    "ext4-user": Kind(
        "ext4", 96, LimitKind.USER, "-b 4096 -m 0 -O quota", "usrquota",
        f"setquota -u {NOBODY} 0 {MARGIN // 1024} 0 0 {{m}}", NOBODY,
    ),
    "ext4-project": Kind(
        "ext4", 96, LimitKind.PROJECT, "-b 4096 -m 0 -O quota,project -E quotatype=prjquota", "prjquota",
        f"chattr +P -p {PROJECT} {{m}}; setquota -P {PROJECT} 0 {MARGIN // 1024} 0 0 {{m}}", NOBODY,
    ),
    "xfs": Kind("xfs", 320, slack=FOLIO),
    "xfs-user": Kind(
        "xfs", 320, LimitKind.USER, "", "uquota",
        f"xfs_quota -x -c 'limit -u bhard={MARGIN} {NOBODY}' {{m}}", NOBODY, FOLIO,
    ),
    "xfs-project": Kind(
        "xfs", 320, LimitKind.PROJECT, "", "pquota",
        f"xfs_quota -x -c 'project -s -p {{m}} {PROJECT}' -c 'limit -p bhard={MARGIN} {PROJECT}' {{m}}", 0, FOLIO,
    ),
    "btrfs": Kind("btrfs", 256, slack=FOLIO),
    "btrfs-qgroup": Kind(
        "btrfs", 256, LimitKind.SUBVOLUME, "", "",
        f"btrfs quota enable {{m}}; btrfs subvolume create {{m}}/sv; btrfs qgroup limit {MARGIN} {{m}}/sv; sync",
        0, FOLIO, "sv",
    ),
    "f2fs": Kind("f2fs", 128, slack=FOLIO),
    "tmpfs": Kind("tmpfs", 16, slack=0),
    "hugetlbfs": Kind("hugetlbfs", 16, LimitKind.HUGE_PAGES, setup="echo 8 > /proc/sys/vm/nr_hugepages", slack=0),
}  # fmt: skip


def fill(place: Path, demanding: int, path: Path, kind: LimitKind) -> None:
    """Take space until what is left to the file is the margin."""
    with (place / "filler").open("wb") as stream:
        while (too_much := _left(demanding, path, kind) - MARGIN) >= 4096:
            size = os.fstat(stream.fileno()).st_size
            with contextlib.suppress(OSError):
                os.posix_fallocate(stream.fileno(), size, min(too_much // 4096 * 4096, 64 * MIB))
                continue
            break
    os.sync()


def _left(pid: int, path: Path, kind: LimitKind) -> int:
    return next(limit.free for limit in look(pid, path)[1].limits if limit.kind is kind)


@pytest.mark.parametrize("name", KINDS)
def test_the_refusal_comes_where_it_was_predicted(name: str) -> None:
    kind = KINDS[name]
    with mounted(name, kind) as place:
        path = sparse(place / "ledger", 48 * MIB, kind.user)
        with writer(path, kind.user) as process:
            if kind.kind in (LimitKind.SPACE, LimitKind.ROOT_SPACE):
                fill(place, process.pid, path, kind.kind)
            found, demand = look(process.pid, path)
            verdict = next(verdict for verdict in found.verdicts if verdict.limit.kind is kind.kind)
            assert verdict.state is RiskState.SHORT
            assert demand.new == 48 * MIB
            assert demand.free == verdict.limit.free
            assert 0 < demand.free < 48 * MIB
            number, outcome = written(process)
            print(f"\nPREDICTION {os.uname().release} {name}: {demand.free} predicted, {number} written", flush=True)
            assert outcome == "refused"
            assert demand.free - kind.slack <= number <= demand.free + kind.slack


def test_the_command_says_so_and_exits_with_a_code_for_monitoring() -> None:
    kind = KINDS["tmpfs"]
    with mounted("command", kind) as place:
        path = sparse(place / "ledger", 48 * MIB)
        with writer(path) as process:
            done = subprocess.run(
                command("risk", "--pid", str(process.pid), "--json"), capture_output=True, text=True, check=False
            )
    assert done.returncode == 20, done.stderr
    (limit,) = json.loads(done.stdout)["limits"]
    assert (limit["state"], limit["new_bytes"], limit["free_bytes"]) == ("short", 48 * MIB, 16 * MIB)
    assert limit["files"][0]["file"] == str(path)
