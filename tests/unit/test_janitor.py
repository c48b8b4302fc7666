"""Return probes go when their tracer ends, however it ends, and whatever it forked. tracefs is a directory here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

#: Makes a return probe, forks a child (without Python's help), and ends as it is told to. The child waits for long.
TRACER = """
import ctypes, os, signal, sys
from contextlib import suppress
from pathlib import Path
from tracer.probes import attach

attach._TRACEFS = (Path(sys.argv[1]),)
probes = attach.ReturnProbes()
with suppress(OSError):
    probes.attach(0, "do_page_mkwrite")
(Path(sys.argv[1]) / "kprobe_events").write_text(f"r:{probes._event('do_page_mkwrite')} do_page_mkwrite\\n")
if not (child := ctypes.CDLL(None).fork()):
    os.close(1)
    signal.pause()
print(child, flush=True)
sys.stdin.readline()
probes.close()
"""


@pytest.fixture
def tracefs(tmp_path: Path) -> Path:
    (tmp_path / "kprobe_events").touch()
    return tmp_path


def removed(tracefs: Path) -> bool:
    """Whether somebody had the event deleted that is there now."""
    lines = (tracefs / "kprobe_events").read_text().splitlines()
    name = lines[0].split()[0].removeprefix("r:")
    return f"-:{name}" in lines[1:]


@pytest.mark.parametrize(
    ("end", "code"), [(lambda tracer: tracer.communicate("\n", 60), 0), (subprocess.Popen.kill, -signal.SIGKILL)]
)
def test_a_child_that_was_forked_keeps_no_probe(
    tracefs: Path, end: Callable[[subprocess.Popen[str]], object], code: int
) -> None:
    tracer = subprocess.Popen(
        [sys.executable, "-c", TRACER, str(tracefs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert tracer.stdout is not None
    child = int(tracer.stdout.readline())
    try:
        assert not removed(tracefs)
        end(tracer)
        assert tracer.wait(60) == code
        deadline = time.monotonic() + 60
        while not removed(tracefs) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert removed(tracefs)
    finally:
        os.kill(child, signal.SIGKILL)
