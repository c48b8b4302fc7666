"""The faults that are timed, and what their times are worth as numbers."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: On tmpfs, so that the program's own pages cause no fault while it is timed.
PLACE = Path("/tmp/bench")
SIZES_MIB = {"ext4": 96, "xfs": 320}
#: Odd primes: a tracer's counts can be compared with them.
FAULTS, RUNS = 499, 3

#: What is timed, by name: arguments of workload.c.
KINDS: Mapping[str, tuple[str, ...]] = {
    "ext4 first write": ("first-write", str(PLACE / "ext4/file")),
    "ext4 write protect": ("write-protect", str(PLACE / "ext4/file")),
    "xfs first write": ("first-write", str(PLACE / "xfs/file")),
    "xfs write protect": ("write-protect", str(PLACE / "xfs/file")),
    "COW": ("cow",),
    "anonymous": ("anonymous",),
}


@dataclass(frozen=True, slots=True)
class Cost:
    """Instructions a fault: the median of all, and how far the medians of single runs lie apart."""

    median: float
    spread: float
    p90: float


def run(*command: str) -> str:
    """Run a command that must succeed; its standard output."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}: {done.stderr}")
    return done.stdout


def prepare() -> None:
    """Fresh filesystems, and the workload in memory."""
    PLACE.mkdir(parents=True)
    shutil.copy(os.environ["WORKLOAD"], PLACE / "workload")
    run("modprobe", "-a", "loop", *SIZES_MIB)
    for fstype, mebibytes in SIZES_MIB.items():
        place, image = PLACE / fstype, PLACE / f"{fstype}.img"
        place.mkdir()
        with image.open("wb") as stream:
            stream.truncate(mebibytes << 20)
        run(f"mkfs.{fstype}", "-q", str(image))
        run("mount", "-o", "loop", str(image), str(place))


def workload(*arguments: object) -> list[int]:
    """Run workload.c: one number a line."""
    return [int(line) for line in run(str(PLACE / "workload"), *map(str, arguments)).split()]


def measure(kind: str) -> Cost:
    """Time one kind of fault."""
    runs = [workload(*KINDS[kind], FAULTS) for _ in range(RUNS)]
    medians = [statistics.median(ticks) for ticks in runs]
    every = [tick for ticks in runs for tick in ticks]
    return Cost(statistics.median(every), max(medians) - min(medians), statistics.quantiles(every, n=10)[-1])


def measure_all() -> dict[str, Cost]:
    """Time every kind of fault, after one run that warms what is allocated once."""
    for arguments in KINDS.values():
        workload(*arguments, FAULTS)
    return {kind: measure(kind) for kind in KINDS}
