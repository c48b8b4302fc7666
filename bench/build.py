"""What the host makes before a guest boots."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path


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
