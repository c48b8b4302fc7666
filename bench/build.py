"""What the host does: compile, run one part in a guest or here, and give back what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.vm.guest import run_guest
from tests.vm.kernel import Kernel

_TIMEOUT_S = 5400


def workload(output: Path) -> None:
    """Compile workload.c, to run in any guest."""
    source = Path(__file__).with_name("workload.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-static", "-pthread", "-o", str(output), str(source)], check=True)


def environment(root: Path, share: Path) -> Mapping[str, str]:
    """The guest's: ``share`` holds the workload and the directory of compiled objects, ``cache``."""
    return {
        "CACHE_DIRECTORY": str(share / "cache"),
        "WORKLOAD": str(share / "workload"),
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _say(data: bytes) -> None:
    """Progress, out of the way of the tables."""
    sys.stderr.buffer.write(data)
    sys.stderr.flush()


def measure_in_guest(root: Path, kernel: Kernel, share: Path, part: str, words: Sequence[str]) -> dict[str, Any]:
    """One part of bench.inside. Threads get CPUs that take turns, on one count of instructions."""
    output = share / "result.json"
    output.unlink(missing_ok=True)
    _say(f"--- {part}, {kernel.release}\n".encode())
    done = run_guest(
        kernel,
        [sys.executable, "-m", "bench.inside", str(output), part, *words],
        icount=True,
        timeout=_TIMEOUT_S,
        cwd=root,
        env=environment(root, share),
        share=[share, root],  # a checkout below /tmp would be hidden by the guest's own
        qemu_args=["-smp", "4"] if part == "threads" else [],
        stdout=_say,
        stderr=_say,
    )
    done.check_returncode()
    result: dict[str, Any] = json.loads(output.read_text())
    return result


def measure_here(root: Path, share: Path, part: str) -> dict[str, Any]:
    """What needs no kernel of its own: a module of that name."""
    _say(f"--- {part}, here\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{part}"],
        cwd=root,
        env={**environment(root, share), "PATH": "/usr/sbin:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
