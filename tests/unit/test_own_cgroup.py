"""A cgroup for a command is made below ours, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.host.mounts import Mounts
from tracer.host.own_cgroup import OwnCgroup


def test_a_hierarchy_in_which_our_path_is_anothers_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.host.own_cgroup._own", lambda: "/")
    (tmp_path / "cgroup.procs").write_text("1\n")
    mounts = Mounts.parse(f"30 1 0:26 / {tmp_path} rw - cgroup2 none rw\n".encode())
    with pytest.raises(OSError):
        OwnCgroup(mounts)
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.procs"]


def test_where_there_is_no_hierarchy_there_is_none() -> None:
    with pytest.raises(OSError, match="no cgroup v2"):
        OwnCgroup(Mounts())
