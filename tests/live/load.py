"""Stores at full rate, beside which something is done to a tracer."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live.guest import WORKLOAD


@contextmanager
def storm(path: Path, threads: int = 3) -> Iterator[Callable[[], int]]:
    """Stores at full rate; the function that it yields ends them and says how many first writes there were."""
    process = subprocess.Popen([WORKLOAD, "storm", str(path), "3600", str(threads)], stdout=subprocess.PIPE)

    def made() -> int:
        process.terminate()
        stores = int(process.communicate()[0])
        assert process.returncode == 0
        return stores

    try:
        yield made
    finally:
        process.kill()
        process.wait()
