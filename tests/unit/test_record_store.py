"""The record's files: what is written is read, whatever becomes of the disk, the writer and the files."""

from __future__ import annotations

import errno
import gzip
import os
import stat
from pathlib import Path

import pytest
from recorded import WRITER, found, note, numbers, store, write

from tracer.record import store as store_module
from tracer.record.lines import decode, decode_all, encode, end_of
from tracer.record.segments import SPARE, UNFINISHED, Segment
from tracer.record.store import Limits

#: A sixteenth of what a segment has, and of the smallest record: the same, sooner.
ROOM = store_module.ROOM // 16
LEAST_SIZE = store_module.LEAST_SIZE // 16


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ROOM", ROOM)


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def segments(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if Segment.named(path.name))


def test_a_line_is_json_with_its_checksum_and_none_that_was_changed_is_read() -> None:
    line = encode({"kind": "gap", "text": 'é\n"crc32"'})
    assert line.isascii() and line.count(b"\n") == 1
    assert decode(line[:-1]) == {"kind": "gap", "text": 'é\n"crc32"'}
    for at in range(len(line) - 1):
        for bit in range(8):
            changed = line[:at] + bytes([line[at] ^ 1 << bit]) + line[at + 1 : -1]
            assert all(each is None for each in decode_all(changed)), (at, bit)


def test_a_torn_tail_is_cut_wherever_it_is_torn() -> None:
    lines = [encode(note(number)) for number in range(7)]
    data = b"".join(lines)
    ends = [sum(map(len, lines[:number])) for number in range(8)]
    for at in range(len(data) + 1):
        assert end_of(data[:at] + bytes(100)) == max(end for end in ends if end <= at)


def test_what_is_written_is_read_across_segments_and_writers(tmp_path: Path) -> None:
    for begin in (0, 40, 80):
        write(tmp_path, (note(number, ROOM // 11) for number in range(begin, begin + 40)))
    assert numbers(tmp_path) == list(range(120))
    account = found(tmp_path)[1]
    assert account.damaged == 0
    assert account.writers == [{"version": 1, **WRITER}]
    assert len(segments(tmp_path)) == 12
    assert [path.suffix for path in segments(tmp_path)] == [*[".gz"] * 11, ".jsonl"]


def test_ordinary_tools_read_a_closed_segment(tmp_path: Path) -> None:
    write(tmp_path, (note(number, ROOM * 2 // 5) for number in range(3)))
    data = gzip.decompress(segments(tmp_path)[0].read_bytes())
    kinds = [frame and frame["kind"] for frame in decode_all(data)]
    assert kinds == ["segment", "repeated", "repeated"]


def test_an_open_segment_has_its_room_and_the_next_one_too(tmp_path: Path) -> None:
    write(tmp_path, [note(1)])
    (segment,) = segments(tmp_path)
    for path in (segment, tmp_path / SPARE):
        assert path.stat().st_blocks * 512 >= ROOM == path.stat().st_size
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_next_writer_goes_on_in_the_open_segment(tmp_path: Path) -> None:
    write(tmp_path, [note(1)])
    (segment,) = segments(tmp_path)
    with segment.open("r+b") as stream:  # torn: a longer line than what comes
        stream.seek(end_of(segment.read_bytes()))
        stream.write(encode(note(2, 5000))[:-7])
    write(tmp_path, [note(3)])
    assert segments(tmp_path) == [segment]
    assert numbers(tmp_path) == [1, 3]
    assert found(tmp_path)[1].damaged == 0


def test_labels_are_written_once_a_segment_and_read_with_each_frame(tmp_path: Path) -> None:
    minute = {"kind": "minute", "from_ns": 1, "time_ns": 2, "calls": [[{"fstype": "ext4"}, 7, 7, []]], "tracer": {}}
    frames = [minute, {**minute, "text": "x" * (ROOM // 2)}, {**minute, "text": "x" * (ROOM // 2)}]
    write(tmp_path, frames)
    assert [frame["calls"] for frame in found(tmp_path)[0]] == [minute["calls"]] * 3
    data = segments(tmp_path)[1].read_bytes()
    assert data.count(b'"fstype"') == 1 and data.count(b'"calls":[[0,7,7,[]]]') == 1


@pytest.mark.parametrize("closed", [False, True])
def test_a_segment_that_was_cut_anywhere_has_all_lines_before_that(tmp_path: Path, closed: bool) -> None:
    write(tmp_path, [note(number) for number in range(5)] + ([note(5, ROOM)] if closed else []))
    path = segments(tmp_path)[0]
    data = path.read_bytes()
    plain = gzip.decompress(data) if closed else data
    for at in range(end_of(plain) if not closed else len(data)):
        path.write_bytes(data[:at])
        seen = [number for number in numbers(tmp_path) if number < 5]
        assert seen == list(range(len(seen)))
        if not closed:
            assert len(seen) == max(0, plain[:at].count(b"\n") - 1)


def test_a_flipped_bit_anywhere_costs_two_lines_at_most_and_is_told(tmp_path: Path) -> None:
    write(tmp_path, [note(number) for number in range(5)])
    (path,) = segments(tmp_path)
    data = path.read_bytes()
    for at in range(end_of(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << at % 8
        path.write_bytes(changed)
        frames, account = found(tmp_path)
        seen = [frame["number"] for frame in frames]
        assert seen == sorted(set(seen)) and set(seen) <= set(range(5)) and len(seen) >= 3
        assert account.damaged or at == end_of(data) - 1


def test_a_flipped_bit_in_a_closed_segment_makes_no_frame_up(tmp_path: Path) -> None:
    write(tmp_path, [note(0), note(1), note(2, ROOM)])
    path = segments(tmp_path)[0]
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        frames, account = found(tmp_path)
        assert all(frame in (note(0), note(1), note(2, ROOM)) for frame in frames)
        seen = [frame["number"] for frame in frames]
        # Some bits of gzip's own header say nothing of what follows.
        assert account.damaged or seen == [0, 1, 2] or at < 10


def test_a_newer_format_is_not_guessed_at(tmp_path: Path) -> None:
    write(tmp_path, [note(1)])
    (segment,) = segments(tmp_path)
    segment.rename(tmp_path / segment.name.replace("mkwrite-1-", "mkwrite-2-"))
    frames, account = found(tmp_path)
    assert (frames, dict(account.newer)) == ([], {2: 1})


def test_a_limit_of_size_holds_and_the_oldest_go_first(tmp_path: Path) -> None:
    directory, made = store(tmp_path, Limits(LEAST_SIZE, 86_400))
    # Lines that cannot be compressed.
    for number in range(200):
        made.append({**note(number), "text": os.urandom(ROOM // 20).hex()})
        assert made.size() <= LEAST_SIZE
    made.close()
    directory.close()
    left = numbers(tmp_path)
    assert left == list(range(left[0], 200)) and len(left) >= 35


def test_a_limit_of_age_holds_but_for_what_is_being_written(tmp_path: Path) -> None:
    write(tmp_path, (note(number, ROOM * 2 // 5) for number in range(9)))
    *closed, last = segments(tmp_path)
    for path in (*closed[:2], last):
        os.utime(path, (1, 1))
    directory, made = store(tmp_path, Limits(LEAST_SIZE, 3600))
    made.append(note(9, ROOM // 2))
    made.append(note(10, ROOM // 2))
    made.close()
    directory.close()
    assert numbers(tmp_path) == list(range(4, 11))


def test_what_failed_is_written_once_when_it_is_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, made = store(tmp_path)
    made.append(note(0))
    real = os.pwrite
    for number in range(1, 60):

        def torn(fd: int, data: bytes, at: int, part: int = number % 5 * 11) -> int:
            monkeypatch.setattr(os, "pwrite", full)
            return real(fd, data[:part], at)

        def full(fd: int, data: bytes, at: int) -> int:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "pwrite", torn)
        with pytest.raises(OSError, match="full"):
            made.append(note(number, ROOM // 25))
        monkeypatch.setattr(os, "pwrite", real)
        made.append(note(number, ROOM // 25))
    made.close()
    directory.close()
    assert numbers(tmp_path) == list(range(60))
    assert found(tmp_path)[1].damaged == 0


def test_without_room_for_the_next_segment_the_open_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, at: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    directory, made = store(tmp_path)
    made.append(note(0))
    (tmp_path / SPARE).unlink()
    monkeypatch.setattr(os, "posix_fallocate", full)
    for _ in range(3):
        with pytest.raises(OSError, match="full"):
            made.append(note(1, ROOM - 100))
    made.append(note(2))
    monkeypatch.undo()
    made.append(note(1, ROOM - 100))
    made.close()
    directory.close()
    assert numbers(tmp_path) == [0, 2, 1]
    assert UNFINISHED not in names(tmp_path)


def test_a_simulated_year_of_a_thousand_series_keeps_within_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A minute of every second day; the clock is the test's, so files have its time, too."""
    clock = [1_700_000_000.0]
    monkeypatch.setattr(store_module.time, "time", lambda: clock[0])
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    labels = [
        {"fstype": "ext4", "mountpoint": f"/srv/{number}", "handler": "ext4_page_mkwrite"} for number in range(1000)
    ]
    limits = Limits(LEAST_SIZE, 30 * 86_400)
    directory, made = store(tmp_path, limits)
    for minute in range(183):
        clock[0] += 2 * 86_400
        calls = [[labels[(minute * 7 + k) % 1000], minute * k, k, [[k % 128, k + 1]]] for k in range(400)]
        made.append({"kind": "minute", "from_ns": 0, "time_ns": int(clock[0] * 1e9), "calls": calls, "number": minute})
        for path in segments(tmp_path):
            if path.stat().st_mtime > 1.75e9:
                os.utime(path, (clock[0], clock[0]))
        assert made.size() <= LEAST_SIZE
        assert not segments(tmp_path)[-1].name.endswith(".gz")
    made.close()
    directory.close()
    left = numbers(tmp_path)
    assert left == list(range(left[0], 183))
    assert 183 - left[0] <= 17
