"""Large blocks go back to the kernel when they are free, in a process that wants that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: What is left of 8 MiB, in KiB, after a larger block was there, and with a small one above it.
SCRIPT = """
import ctypes as ct, sys
from pathlib import Path
from tracer.host.memory import give_back_what_is_free
libc = ct.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ct.c_void_p, (ct.c_size_t,)
libc.free.argtypes = (ct.c_void_p,)
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4
def block(size):
    made = libc.malloc(size)
    ct.memset(made, 1, size)
    return made
if sys.argv[1:]:
    give_back_what_is_free()
before = resident()
libc.free(block(30 << 20))
large, above = block(8 << 20), block(100_000)
libc.free(large)
print(resident() - before)
"""


@pytest.mark.parametrize(("arguments", "stays"), [([], True), (["give back"], False)])
def test_what_stays_of_a_large_block(arguments: list[str], stays: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (int(done.stdout) > 4 << 10) == stays, done.stdout
