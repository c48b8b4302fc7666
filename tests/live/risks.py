"""Filesystems to fill, files on them, and who writes to these until refused."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.live.guest import ROOT, WORKLOAD, run
from tracer.mappings.risk import Demand, LimitKind
from tracer.mappings.survey import Survey, survey
from tracer.model.options import Filters

MIB = 1 << 20
#: A large folio asks for all of its bytes at once: the last that does not fit is refused as a whole.
FOLIO = MIB // 2
#: ext4 takes blocks for the map of a file's extents; it has large folios since 6.16.
EXT4 = 4 * 4096 if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 16) else FOLIO
#: A margin that is no multiple of anything but the page.
MARGIN = 1021 * 4096


@dataclass(frozen=True)
class Kind:
    """A filesystem to fill: how it is made, who writes, what it runs into, and how far off the prediction may be.

    ``limit`` is applied by ``setup`` (a shell command, {m} is the mount point) and leaves MARGIN or less of itself.
    """

    fstype: str
    size: int
    kind: LimitKind = LimitKind.SPACE
    make: str = ""
    options: str = ""
    setup: str = ""
    user: int = 0
    slack: int = EXT4
    where: str = ""


#: By what backs their files.
FILESYSTEMS = {
    "ext4": Kind("ext4", 64, make="-b 4096"),
    "ext4-1k": Kind("ext4", 64, make="-b 1024"),
    "ext3": Kind("ext3", 64, make="-b 4096"),
    "xfs": Kind("xfs", 320),
    "btrfs": Kind("btrfs", 160),
    "btrfs-compressed": Kind("btrfs", 160, options="compress-force=zstd"),
    "f2fs": Kind("f2fs", 128),
    "tmpfs": Kind("tmpfs", 64),
}


@contextmanager
def mounted(name: str, kind: Kind) -> Iterator[Path]:
    """A fresh filesystem; unmounted afterwards."""
    place = ROOT / f"risk-{name}"
    place.mkdir(parents=True)
    image = ROOT / f"risk-{name}.img"
    if kind.fstype == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={kind.size}m", "none", str(place))
    elif kind.fstype == "hugetlbfs":
        run("mount", "-t", "hugetlbfs", "none", str(place))
    else:
        with image.open("wb") as stream:
            stream.truncate(kind.size << 20)
        run("modprobe", "-a", "loop", kind.fstype)
        run("sh", "-c", f"mkfs.{kind.fstype} -q {kind.make} {image}")
        run("mount", "-o", ",".join(("loop", *filter(None, [kind.options]))), str(image), str(place))
    try:
        run("sh", "-ec", kind.setup.format(m=place) or "true")
        yield place / kind.where
    finally:
        run("umount", str(place))
        image.unlink(missing_ok=True)


@contextmanager
def writer(path: Path, user: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A process that maps a file and waits for a line before it writes."""
    process = subprocess.Popen(
        [WORKLOAD, "dirty", str(path), str(user)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "mapped\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def written(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Let the writer write: how many bytes, and whether they were all "written", or the next one "refused"."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    number, outcome = process.stdout.readline().split()
    return int(number), outcome


def sparse(path: Path, size: int, owner: int = 0) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
    os.chown(path, owner, owner)
    return path


def look(pid: int, path: Path) -> tuple[Survey, Demand]:
    """What `risk` says of a file that a process maps."""
    found = survey(Filters(pids=(pid,)))
    return found, next(demand for demand in found.demands if demand.path == str(path))
