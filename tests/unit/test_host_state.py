"""The state of the host is read through the victim, which may die meanwhile."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from failure_samples import REFUSED

from tracer.host.mounts import Mounts
from tracer.host.reach import MountFinder

#: A filesystem that only this process has.
_ALONE = "mount -t tmpfs none /mnt && : >/mnt/file && echo && read -r _"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_victim_that_dies_does_not_take_its_filesystem_along() -> None:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ALONE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        victim.stdout.readline()
        there = Mounts.read(Path(f"/proc/{victim.pid}/mountinfo")).at("/mnt")
        assert there is not None
        finder = MountFinder(lambda failure: False)
        failure = replace(REFUSED, pid=victim.pid, dev=there.dev, fstype="tmpfs", file="/mnt/file")
        found = finder.find(failure, ())
        assert finder.entry(replace(failure, signal=None), ()) == (f"nsenter -t {victim.pid} -m ", "/mnt")
        assert finder.entry(failure, ()) is None  # it dies
        victim.kill()
    assert found is not None
    try:
        assert found.mount == there
        assert Path(f"/proc/self/fd/{found.held[0]}/mnt/file").exists()
    finally:
        found.close()
    again = finder.find(replace(failure, pid=0), ())
    assert again is not None and (again.mount, again.held) == (there, ())
    assert finder.entry(failure, ()) is None
    assert MountFinder(lambda failure: False).find(replace(failure, pid=0), ()) is None
    assert finder.find(replace(failure, pid=0, generation=1), ()) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_mount_that_neither_we_nor_the_victim_has_is_looked_for_in_every_namespace() -> None:
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ALONE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sibling:
        assert sibling.stdout is not None
        sibling.stdout.readline()
        there = Mounts.read(Path(f"/proc/{sibling.pid}/mountinfo")).at("/mnt")
        assert there is not None
        finder = MountFinder(lambda failure: False)
        failure = replace(REFUSED, pid=0, dev=there.dev, fstype="tmpfs", file="/mnt/file")
        found = finder.find(failure, ())
        assert found is not None and found.mount == there
        found.close()
        assert finder.entry(failure, ()) == (f"nsenter -t {sibling.pid} -m ", "/mnt")
        sibling.kill()
