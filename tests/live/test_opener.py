"""A victim's path leads into a filesystem that never answers: what is told of it comes in time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.live.guest import run
from tests.live.hung_fuse import fuse
from tests.unit.failure_samples import REFUSED
from tracer.host.mounts import Mounts
from tracer.host.state import StateReader

pytestmark = [pytest.mark.native, pytest.mark.nightly, pytest.mark.here]


@contextmanager
def fuse_control() -> Iterator[None]:
    """What gives a hung connection up, where it is not mounted anyhow."""
    run("sh", "-c", "modprobe fuse || :")
    there = Mounts.read().at("/sys/fs/fuse/connections") is not None
    if not there:
        run("mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections")
    try:
        yield
    finally:
        if not there:
            run("umount", "/sys/fs/fuse/connections")


def test_a_path_into_a_hung_filesystem_keeps_no_report_waiting(tmp_path: Path) -> None:
    """A daemon that answers after a quarter of an hour, or never, stands for one that is dead."""
    here = Mounts.read()
    own = max((m for m in here if tmp_path.is_relative_to(m.mountpoint)), key=lambda m: len(m.mountpoint))
    with fuse_control(), fuse(tmp_path) as hang:
        hang.set()
        failure = replace(
            REFUSED, pid=os.getpid(), dev=own.dev, fstype=own.kernel_type, file=str(tmp_path / "file"), deleted=False
        )
        begin = time.monotonic()
        found = StateReader(lambda failure: False).read(failure)
        took_s = time.monotonic() - begin
    assert found.file is None
    assert found.mountpoint == own.mountpoint
    assert took_s < 60
