"""Control groups: a directory tree stands in for the hierarchy, since an id is an inode number."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tracer.errors import Exit, UsageError
from tracer.host.cgroups import Cgroups
from tracer.host.mounts import Mounts


def hierarchy(root: Path, *paths: str) -> Cgroups:
    """A hierarchy with these cgroups, mounted at ``root``."""
    for path in paths:
        (root / path).mkdir(parents=True)
    return Cgroups(Mounts.parse(f"36 35 0:29 / {root} rw - cgroup2 none rw\n".encode()))


def test_the_same_cgroup_can_be_named_in_three_ways(tmp_path: Path) -> None:
    cgroups = hierarchy(tmp_path, "system.slice/ssh.service")
    ino = (tmp_path / "system.slice/ssh.service").stat().st_ino
    assert cgroups.id_of("/system.slice/ssh.service") == ino
    assert cgroups.id_of("system.slice/ssh.service/") == ino
    assert cgroups.id_of(f"{tmp_path}/system.slice/ssh.service") == ino


def test_the_root_is_a_cgroup(tmp_path: Path) -> None:
    cgroups = hierarchy(tmp_path, "a")
    assert cgroups.id_of("/") == cgroups.id_of(str(tmp_path)) == tmp_path.stat().st_ino
    assert cgroups.path_of(tmp_path.stat().st_ino) == "/"


def test_ids_and_paths_are_inverse(tmp_path: Path) -> None:
    paths = ["/a", "/a/b", "/a/b c", "/d.slice"]
    cgroups = hierarchy(tmp_path, *(path[1:] for path in paths))
    assert [cgroups.path_of(cgroups.id_of(path)) for path in paths] == paths


def test_a_cgroup_made_later_is_found(tmp_path: Path) -> None:
    cgroups = hierarchy(tmp_path, "a")
    cgroups.path_of(tmp_path.stat().st_ino)
    (tmp_path / "a" / "new").mkdir()
    assert cgroups.path_of((tmp_path / "a" / "new").stat().st_ino) == "/a/new"


def test_a_cgroup_that_went_away_keeps_its_path(tmp_path: Path) -> None:
    cgroups = hierarchy(tmp_path, "gone", "kept")
    ino = cgroups.id_of("gone")
    assert cgroups.path_of(ino) == "/gone"
    (tmp_path / "gone").rmdir()
    assert cgroups.path_of(ino) == "/gone"


def test_an_unknown_id_is_shown_as_one(tmp_path: Path) -> None:
    assert hierarchy(tmp_path, "a").path_of(1 << 60) == f"cgroup:{1 << 60}"


@pytest.mark.parametrize("wrong", ["b", "/a/b", "a/../..//etc", "a\0", "a/file"])
def test_what_is_no_cgroup_is_refused(tmp_path: Path, wrong: str) -> None:
    cgroups = hierarchy(tmp_path, "a")
    (tmp_path / "a" / "file").touch()
    with pytest.raises(UsageError):
        cgroups.id_of(wrong)


def test_the_error_lists_what_is_there_and_escapes_it(tmp_path: Path) -> None:
    cgroups = hierarchy(tmp_path, "system.slice/ssh.service", "system.slice/\x1b[31mred")
    with pytest.raises(UsageError) as caught:
        cgroups.id_of("/system.slice/sssh.service")
    assert caught.value.problem == "There is no cgroup '/system.slice/sssh.service'."
    assert caught.value.cure == "Below '/system.slice' there are: \\x1b[31mred, ssh.service."


def test_without_a_hierarchy_ids_are_all_there_is() -> None:
    cgroups = Cgroups(Mounts())
    assert cgroups.path_of(7) == "cgroup:7"
    with pytest.raises(UsageError) as caught:
        cgroups.id_of("/")
    assert caught.value.code == Exit.USAGE


def test_the_members_of_a_cgroup_are_those_that_our_proc_has(tmp_path: Path) -> None:
    cgroups = hierarchy(tmp_path, "a")
    (tmp_path / "a" / "cgroup.procs").write_text("0\n17\n4242\n")
    (tmp_path / "cgroup.procs").write_text("1\n")
    assert list(cgroups.members("/a")) == [17, 4242]
    # Neither the whole host, nor what is gone.
    assert list(cgroups.members("/")) == []
    assert list(cgroups.members("cgroup:7")) == []


def test_cgroups_as_deep_as_a_path_can_be_are_found_and_deeper_ones_harm_nobody(tmp_path: Path) -> None:
    # Any user may nest those that were delegated to him.
    cgroups = hierarchy(tmp_path, "a")
    above = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=above)
        below = os.open("deep", os.O_RDONLY, dir_fd=above)
        os.close(above)
        above = below
    last = os.fstat(above).st_ino
    os.close(above)
    assert cgroups.path_of((tmp_path / "a").stat().st_ino) == "/a"
    assert cgroups.path_of((tmp_path / "/".join(["deep"] * 700)).stat().st_ino) == "/deep" * 700
    assert cgroups.path_of(last) == f"cgroup:{last}"
    assert cgroups.ids() is None
    subprocess.run(["rm", "-rf", tmp_path / "deep"], check=True)


def test_ids_are_all_or_none(tmp_path: Path) -> None:
    cgroups = hierarchy(tmp_path, "a", "b/c")
    assert cgroups.ids() == {path.stat().st_ino for path in (tmp_path, *tmp_path.rglob("*"))}
    (tmp_path / "b").chmod(0)
    assert os.geteuid() == 0 or cgroups.ids() is None
