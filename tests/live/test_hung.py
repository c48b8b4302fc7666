"""Nothing waits for a daemon that does not answer."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.live.guest import command, run
from tests.live.hung_fuse import SIZE, fuse


@pytest.mark.parametrize("what", ["maps", "risk"])
def test_a_file_on_a_hung_fuse_filesystem_is_told_but_not_asked(tmp_path: Path, what: str) -> None:
    run("modprobe", "fuse")
    run("sh", "-c", "mountpoint -q /sys/fs/fuse/connections || mount -t fusectl none /sys/fs/fuse/connections")
    path = tmp_path / "file"
    with fuse(tmp_path) as hang:
        descriptor = os.open(path, os.O_RDWR)
        os.close(os.dup(descriptor))  # the kernel learns that the daemon knows no flush, and closing will not wait
        with closing(mmap.mmap(descriptor, SIZE)):
            hang.set()
            done = subprocess.run(
                command(what, "--pid", str(os.getpid()), "--json"),
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    if what == "maps":
        (mapping,) = (m for m in found["mappings"] if m["file"] == str(path))
        assert (mapping["fstype"], mapping["size_bytes"], mapping["mapped_bytes"]) == ("fuse", None, SIZE)
    else:
        assert any(note.startswith("1 files on fuse were not asked") for note in found["notes"])
