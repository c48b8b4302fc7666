"""Capabilities as the kernel shows them, of a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, threading
from pathlib import Path
from tracer.host.privileges import Capability, User, keep
keep([{}], {})
print(Path("/proc/thread-self/status").read_text())
thread = threading.Thread(target=lambda: print(Path("/proc/thread-self/status").read_text()))
thread.start()
thread.join()
print(os.popen("cat /proc/self/status").read())
"""


def printed(kept: str, user: str = "None", without: str = "") -> str:
    """What /proc says of the thread, of one that it starts, and of a program that it runs."""
    done = subprocess.run(
        [
            *(["setpriv", f"--bounding-set=-{without}"] if without else []),
            sys.executable,
            "-c",
            SCRIPT.format(kept, user),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def shown(kept: str, user: str = "None") -> list[dict[str, int]]:
    """Their sets of capabilities."""
    text = printed(kept, user)
    found = [(name, int(value, 16)) for name, value in re.findall(r"^Cap(\w+):\s+(\w+)$", text, re.MULTILINE)]
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_root_becomes_another_user_unless_a_capability_that_it_would_keep_is_missing() -> None:
    nobody = "User.named('nobody')"
    text = printed("Capability.DAC_READ_SEARCH", nobody)
    assert re.findall(r"^(Uid|Gid|Groups):[ \t]*(.*?)[ \t]*$", text, re.MULTILINE) == [
        ("Uid", "65534\t65534\t65534\t65534"), ("Gid", "65534\t65534\t65534\t65534"), ("Groups", ""),
    ] * 3  # fmt: skip
    # A program that it runs has what is left, and not what is in the ambient set, which is empty.
    assert re.findall(r"^CapEff:\s+(\w+)$", text, re.MULTILINE)[:2] == [f"{1 << 2:016x}"] * 2
    text = printed("Capability.DAC_READ_SEARCH", nobody, without="dac_read_search")
    assert re.findall(r"^Uid:\s+(\d+)", text, re.MULTILINE) == ["0"] * 3
    assert re.findall(r"^CapEff:\s+(\w+)$", text, re.MULTILINE) == ["0" * 16] * 3
