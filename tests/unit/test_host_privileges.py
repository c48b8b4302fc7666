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
from tracer.host.privileges import keep
from tracer.model.capabilities import Capability
keep([{}])
print(Path("/proc/thread-self/status").read_text())
thread = threading.Thread(target=lambda: print(Path("/proc/thread-self/status").read_text()))
thread.start()
thread.join()
print(os.popen("cat /proc/self/status").read())
"""


def shown(kept: str) -> list[dict[str, int]]:
    """The sets of capabilities that /proc shows of the thread, of one that it starts, and of a program that it runs."""
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


CONFINED = """
import socket, sys
from pathlib import Path
from tracer.errors import MkwriteError
from tracer.host.confined import Confined
from tracer.host.privileges import User

ours, theirs = socket.socketpair()
try:
    process = Confined(lambda: theirs.recv(1), [theirs.fileno()], User(65534, 65534))
except MkwriteError as error:
    sys.exit(error.problem)
print(Path(f"/proc/{process.pid}/status").read_text(), process.ended() == "")
ours.close()
process.wait(60)
print(process.ended())
"""


def confined(*before: str) -> subprocess.CompletedProcess[str]:
    """What /proc says of a process that was confined by one that ``before`` started."""
    return subprocess.run(
        [*before, sys.executable, "-c", CONFINED],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_confined_process_has_no_right_and_ends_when_its_channel_does() -> None:
    done = confined()
    assert re.findall(r"^Cap(?:Inh|Prm|Eff|Amb):\s+(\w+)$", done.stdout, re.MULTILINE) == ["0" * 16] * 4
    uid = 65534 if os.geteuid() == 0 else os.geteuid()
    assert re.search(rf"^Uid:(?:\s+{uid}){{4}}$", done.stdout, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith(" True\nexit code 0\n"), done


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("without", ["setuid", "setgid"])
def test_no_process_is_confined_that_would_stay_root(without: str) -> None:
    done = confined("setpriv", f"--bounding-set=-{without}")
    assert done.returncode == 1
    assert done.stderr == "A process without rights cannot be made: Operation not permitted.\n"
