"""``mkwrite snapshot``: a piece of a record that is read as the record is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import night
import pytest
from click.testing import CliRunner, Result
from recorded import found

from tracer.cli.main import cli
from tracer.record.lines import decode
from tracer.record.reading import Account, Span, read
from tracer.record.segments import segments_at

FROM, TO = (f"@{(night.START + number * night.MINUTE) // 10**9}" for number in (60, 80))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return night.record(tmp_path_factory.mktemp("record"))


@pytest.fixture(scope="module")
def piece(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty minutes of it, in which two failures were told."""
    piece = tmp_path_factory.mktemp("piece") / "incident.mkw"
    result = run("snapshot", "--from", str(place), "--since", FROM, "--until", TO, "-o", str(piece))
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert "record of db7: Linux 6.12.1, mkwrite 0.1.0, fentry" in result.stderr
    return piece


@pytest.mark.parametrize(
    "command",
    ["sigbus", "sigbus --json", "count --json", "waits --json", "hist", "trace --json", "stuck --json", "top"],
)
def test_every_view_shows_of_the_piece_what_it_shows_of_the_record(place: Path, piece: Path, command: str) -> None:
    span = ("--since", FROM, "--until", TO)
    whole, cut = (run(*command.split(), "--from", str(one), *span) for one in (place, piece))
    assert whole.exit_code == cut.exit_code == 0, whole.stderr
    assert whole.stdout == cut.stdout != ""
    assert whole.stderr == cut.stderr


def test_each_line_is_as_it_was_written(place: Path, piece: Path) -> None:
    (segment,) = place.glob("*.jsonl")
    written = segment.read_bytes().rstrip(b"\0").splitlines()
    lines = gzip.decompress(piece.read_bytes()).splitlines()
    assert lines == [line for line in written if line in lines]
    kinds = [json.loads(line)["kind"] for line in lines]
    # The minute before ends when the span begins, the last one begins when it ends.
    assert (kinds.count("minute"), kinds.count("failure"), kinds.count("segment")) == (22, 2, 1)
    assert piece.stat().st_mode & 0o777 == 0o640


def test_a_piece_of_a_piece_and_a_segment_under_another_name_are_read(place: Path, piece: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert run("snapshot", "--from", str(piece), "--since", FROM, "--until", TO, "-o", str(again)).exit_code == 0
    assert gzip.decompress(again.read_bytes()) == gzip.decompress(piece.read_bytes())
    (segment,) = place.glob("*.jsonl")
    copy = tmp_path / "copied"
    copy.write_bytes(segment.read_bytes())
    assert list(read(segments_at(copy), Span(0, 1 << 62), Account())) == found(place)[0]


def test_strangers_read_no_command_and_no_long_path(place: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown"
    result = run("snapshot", "--from", str(place), "--redact", "-o", str(shown))
    assert result.exit_code == 0, result.stderr
    text = gzip.decompress(shown.read_bytes())
    assert all(decode(line) for line in text.splitlines())
    for secret in (b"hunter2", b"acme", b"customers"):
        assert secret not in text
    assert b"orders and more.db" in text
    frames = [json.loads(line) for line in text.splitlines()]
    assert [one["command"] for one in frames if one["kind"] == "failure"] == [[]] * 3
    assert len(found(place)[0]) == sum(one["kind"] not in ("segment", "series") for one in frames)


def test_it_goes_to_a_pipe(place: Path, piece: Path) -> None:
    result = run("snapshot", "--from", str(place), "--since", FROM, "--until", TO, "-o", "-")
    assert result.exit_code == 0
    assert gzip.decompress(result.stdout_bytes) == gzip.decompress(piece.read_bytes())


def test_no_file_is_replaced_unless_that_is_asked_for(place: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    result = run("snapshot", "--from", str(place), "-o", str(there))
    assert there.read_text() == "mine"
    assert "is there already" in str(result.exception)
    assert run("snapshot", "--from", str(place), "-o", str(there), "--force").exit_code == 0
    assert segments_at(there).segments()
    assert [one.name for one in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("command", ["snapshot", "report"])
def test_a_time_of_which_nothing_is_recorded_makes_no_file(place: Path, tmp_path: Path, command: str) -> None:
    result = run(command, "--from", str(place), "--until", "@1000000000", "-o", str(tmp_path / "none"))
    assert result.exit_code != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no record", b"\x1f\x8b\x08broken", gzip.compress(b"[1]"), b"{}\n" * 9])
def test_a_file_that_is_no_record_is_told_as_such(tmp_path: Path, content: bytes) -> None:
    other = tmp_path / "other"
    other.write_bytes(content)
    result = run("sigbus", "--from", str(other))
    assert result.exit_code != 0
    assert "is no record" in str(result.exception)


def test_a_newer_format_is_told_as_such(tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.write_bytes(gzip.compress(b'{"kind":"segment","version":9,"crc32":"00000000"}\n'))
    result = run("sigbus", "--from", str(newer))
    assert "1 files have format 9, which a newer mkwrite wrote" in result.stderr
