"""Capabilities as the kernel shows them, of a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import os, threading
from pathlib import Path
from tracer.host.privileges import Capability, keep
keep([{}])
print(Path("/proc/thread-self/status").read_text())
thread = threading.Thread(target=lambda: print(Path("/proc/thread-self/status").read_text()))
thread.start()
thread.join()
print(os.popen("cat /proc/self/status").read())
"""


def shown(kept: str) -> list[dict[str, int]]:
    """Sets of capabilities of the thread, of one that it starts, and of a program that it runs."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(kept)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    found = [(name, int(value, 16)) for name, value in re.findall(r"^Cap(\w+):\s+(\w+)$", done.stdout, re.MULTILINE)]
    return [dict(found[start : start + 5]) for start in range(0, len(found), 5)]


def had() -> int:
    """What this process may do."""
    match = re.search(r"^CapPrm:\s+(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match
    return int(match[1], 16)


def test_nothing_is_left_but_what_is_kept() -> None:
    for kept, mask in (("", 0), ("Capability.BPF, Capability.DAC_OVERRIDE", 1 << 39 | 1 << 1)):
        sets = shown(kept)
        assert len(sets) == 3
        for capabilities in sets:
            assert capabilities["Eff"] == capabilities["Prm"] == mask & had()
            assert capabilities["Inh"] == capabilities["Amb"] == 0
