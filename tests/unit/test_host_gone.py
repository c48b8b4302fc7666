"""Which processes and cgroups are gone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import process_of

from tracer.host.cgroups import Cgroups
from tracer.host.liveness import gone_in
from tracer.host.mounts import Mounts
from tracer.model.options import By

IN_INITIAL = Path("/proc/self/ns/pid").readlink() == Path("pid:[4026531836]")


def test_of_files_nobody_can_tell() -> None:
    assert gone_in(By.FILE, Cgroups(Mounts.read())) is None
    assert gone_in(None, Cgroups(Mounts.read())) is None


@pytest.mark.skipif(not IN_INITIAL, reason="needs the initial pid namespace")
def test_a_process_is_gone_when_it_has_been_waited_for() -> None:
    test = gone_in(By.PROCESS, Cgroups(Mounts.read()))
    assert test
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = process_of(child.pid)
    assert not test()(process) and not test()(process_of(os.getpid())) and not test()(process_of(1))
    child.communicate(b"\n")
    assert test()(process)


@pytest.mark.skipif(not IN_INITIAL, reason="needs the initial pid namespace")
def test_a_process_is_gone_when_another_has_its_pid() -> None:
    test = gone_in(By.PROCESS, Cgroups(Mounts.read()))
    assert test
    assert test()(process_of(os.getpid()) - (1000 << 32))
    assert test()(process_of(1) + (1000 << 32))


def test_a_cgroup_is_gone_when_the_hierarchy_has_none_of_its_number(tmp_path: Path) -> None:
    line = f"1 1 0:1 / {tmp_path} rw - cgroup2 none rw\n".encode()
    # Not the root of the hierarchy: there are others that cannot be seen.
    assert gone_in(By.CGROUP, Cgroups(Mounts.parse(line))) is None
