"""Pages that were lost below their files: what is reported, and that the printed remedy is one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.guest import ROOT, Backend, Options
from tracer.diagnosis.explainer import Explained, Explainer
from tracer.model.failures import Class, Fact
from tracer.session import Session

pytestmark = [pytest.mark.newest, pytest.mark.nightly]
KERNEL = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
POISON = """
import mmap, sys
file = open(sys.argv[1], "r+b")
mapped = mmap.mmap(file.fileno(), 0)
mapped[4096] = 7
mapped.madvise(100, 4096, 4096)  # MADV_HWPOISON
print(mapped[4096])
"""
READ = "import mmap, sys; file = open(sys.argv[1], 'r+b'); print(mmap.mmap(file.fileno(), 0)[4096])"


def python(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)


def test_broken_memory_stays_in_a_tmpfs_until_the_page_is_punched_out(backend: Backend) -> None:
    path = ROOT / f"broken-{backend}"
    ROOT.mkdir(exist_ok=True)
    path.write_bytes(bytes(3 * 4096))
    with Session(Options(backend)) as session:
        assert python(POISON, path).returncode == -signal.SIGBUS
        later = [python(READ, path) for _ in range(2)]
        if KERNEL < (5, 16):
            assert [(done.returncode, done.stdout) for done in later] == [(0, "0\n")] * 2
            return
        assert [done.returncode for done in later] == [-signal.SIGBUS] * 2
        found = session.failures(timeout_s=2.0)
        told = [one for one in Explainer(session.has_ended).explain(found) if isinstance(one, Explained)]
    assert [(failure.facts & Fact.POISONED, failure.offset) for failure in found] == [(Fact.POISONED, 4096)] * 3
    assert {one.diagnosis.kind for one in told} == {Class.MEDIA}
    assert "stays in the file" in told[0].diagnosis.cause
    subprocess.run(told[0].diagnosis.run, shell=True, check=True)
    assert python(READ, path).stdout == "0\n"
