"""The file for node_exporter."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tracer.errors import MkwriteError
from tracer.export.prometheus.textfile import Textfile


def test_it_is_there_for_all_to_read_and_goes_in_the_end(tmp_path: Path) -> None:
    file = Textfile(tmp_path)
    file.write(b"mkwrite_up 1\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mkwrite.prom"]
    assert file.path.read_bytes() == b"mkwrite_up 1\n"
    assert file.path.stat().st_mode & 0o777 == 0o644
    file.remove()
    file.remove()
    assert not list(tmp_path.iterdir())


def test_a_reader_sees_the_old_or_the_new(tmp_path: Path) -> None:
    file = Textfile(tmp_path)
    contents = {b"a" * 300_000, b"b" * 200_000}
    file.write(min(contents))
    seen = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(file.path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(50):
        for content in contents:
            file.write(content)
    done.set()
    reader.join()
    assert seen <= contents


def test_what_was_there_stays_until_there_is_something_new(tmp_path: Path) -> None:
    (tmp_path / "mkwrite.prom").write_text("mkwrite_up 1\n")
    assert Textfile(tmp_path).path.read_text() == "mkwrite_up 1\n"


def test_a_directory_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MkwriteError, match="No such file"):
        Textfile(tmp_path / "nowhere")


def test_what_hinders_later_is_logged_and_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Textfile(tmp_path)
    file.remove()
    file.path.mkdir()
    file.renew(b"x")
    assert "cannot be written" in caplog.text
    with pytest.raises(MkwriteError, match="cannot be written"):
        file.write(b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["mkwrite.prom"]
