"""The state of the host is read through the victim, which may die meanwhile."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from failure_samples import REFUSED

from tracer.host.mounts import Mounts
from tracer.host.state import _mount

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
        mount, mounts, held = _mount(replace(REFUSED, pid=victim.pid, dev=there.dev), ())
        victim.kill()
    try:
        assert mount == there and there in mounts
        assert Path(f"/proc/self/fd/{held[0]}/mnt/file").exists()
    finally:
        for descriptor in held:
            os.close(descriptor)
