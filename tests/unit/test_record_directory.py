"""The directory of a record: what others could write to or replace is not used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from recorded import found, note, store, write

from tracer.errors import MkwriteError, UsageError
from tracer.record.segments import SPARE, UNFINISHED, Directory, Segment


def test_what_is_no_file_of_a_record_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    for spoil in (
        lambda path: path.write_text(""),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/etc/passwd"),
    ):
        other = tmp_path / "other\x1b"
        spoil(other)
        with pytest.raises(UsageError, match=r"has 'other\\x1b', which is no file of a record"):
            Directory(tmp_path, writing=True)
        other.rename(tmp_path.parent / f"gone-{id(spoil)}")


@pytest.mark.parametrize("name", [SPARE, UNFINISHED, Segment(1, 0).name, Segment(1, 0, closed=True).name])
def test_links_with_the_names_of_a_record_are_refused(tmp_path: Path, name: str) -> None:
    place = tmp_path / "record"
    place.mkdir(0o750)
    target = tmp_path / "target"
    target.write_text("precious")
    (place / name).symlink_to(target)
    with pytest.raises(UsageError, match="no file of a record"):
        Directory(place, writing=True)
    (place / name).unlink()
    os.link(target, place / name)
    with pytest.raises(UsageError, match="no file of a record"):
        Directory(place, writing=True)
    assert target.read_text() == "precious"


def test_a_reader_follows_no_link_and_waits_for_no_pipe(tmp_path: Path) -> None:
    write(tmp_path, [note(1)])
    (tmp_path / Segment(2, 0).name).symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / Segment(3, 0).name)
    frames, account = found(tmp_path)
    assert [frame["number"] for frame in frames] == [1]
    assert len(account.unreadable) == 2


def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match="can be written to by others"):
        Directory(tmp_path, writing=True)


def test_a_link_to_a_directory_is_refused_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir(0o750)
    (tmp_path / "link").symlink_to("place")
    with pytest.raises(MkwriteError, match="cannot be used"):
        Directory(tmp_path / "link", writing=True)


def test_a_record_has_one_writer(tmp_path: Path) -> None:
    directory, _ = store(tmp_path)
    with pytest.raises(MkwriteError, match="Another process keeps its record"):
        Directory(tmp_path, writing=True)
    directory.close()
    Directory(tmp_path, writing=True).close()
