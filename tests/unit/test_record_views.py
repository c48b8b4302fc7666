"""``trace``, ``stuck``, ``waits`` and ``top`` of a record: the same words, and the same JSON, as live."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from recorded import write
from samples import event
from test_cli_terminal import ENTER_SCREEN, Screen
from test_record_events import STUCK_CALL
from test_record_replay import FIRST, MINUTE, SECOND, START, at, explained, look, minute

from tracer.export.json.failures import failure_dict, record
from tracer.export.json.records import event_dict, json_line, snapshot_dict, stuck_dict, total_dict
from tracer.host.space import Space
from tracer.mappings.risk import LimitedFilesystem
from tracer.model.calls import Filesystem
from tracer.model.failures import Actor
from tracer.model.freezes import Freeze
from tracer.model.waits import Wait
from tracer.record.events import freeze_frames, slow_frame, stuck_frame
from tracer.record.minutes import Minute, frame
from tracer.record.reports import failure_frame

DEV = 8 << 20 | 1
SLOW = [
    replace(
        event(f"/srv/{ms}"), time_ns=START + 2 * MINUTE + ms, latency_ns=ms * 10**6, waits={Wait.FREEZE: ms * 10**5}
    )
    for ms in (700, 150, 300)
]
FREEZE = Freeze(START + 2 * MINUTE + 5, Actor(9, 9, "fsfreeze"), START + 2 * MINUTE + 99, Actor(8, 8, "thaw"))
FULL = {LimitedFilesystem("ext4", "/srv", DEV): Space(0, 0, 0, 1 << 30)}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minutes 1 to 7 but for the fifth; what happened stands before the minute that it happened in."""
    place = tmp_path_factory.mktemp("record")
    frames = [
        {"kind": "start", "time_ns": START + MINUTE, "mkwrite": "0.1.0", "kernel": "6.12.1", "boot_id": "one",
         "host": "db7", "backend": "fentry"},
        failure_frame(explained(0)), frame(replace(minute(1), space=FULL)),
        *freeze_frames(Filesystem(DEV), None, FREEZE, 0), *map(slow_frame, sorted(SLOW, key=lambda call: call.time_ns)),
        stuck_frame([STUCK_CALL], START + 3 * MINUTE - 1), frame(minute(2)), frame(minute(3)), frame(minute(4)),
        failure_frame(explained(1)), frame(minute(6)),
        stuck_frame([replace(STUCK_CALL, call=replace(STUCK_CALL.call, pid=70, fstype="xfs"))], START + 8 * MINUTE - 1),
        frame(minute(7)),
    ]  # fmt: skip
    write(place, frames)
    return place


def lines(text: str) -> list[object]:
    return [json.loads(line) for line in text.splitlines()]


def test_trace_has_the_failures_of_then_and_slow_calls_if_asked_for(place: Path) -> None:
    result = look(place, "trace", "--json")
    assert result.stdout.splitlines() == [json_line(record(one)) for one in (FIRST, SECOND)]
    assert "21 more failures were counted only" in result.stderr  # 23 less two that were told
    result = look(place, "trace", "--json", "--slower", "200ms")
    slow = [json_line(record(SLOW[number])) for number in (2, 0)]
    assert result.stdout.splitlines() == [json_line(record(FIRST)), *slow, json_line(record(SECOND))]
    assert "the 20 longest of each minute" in result.stderr
    text = look(place, "trace", "--slower", "200ms").stdout
    assert "freeze 70.0ms" in text and text.count("/srv/300") == 1 and "WAITED FOR" in text
    assert len(lines(look(place, "trace", "--json", "-n", "1").stdout)) == 1
    assert lines(look(place, "trace", "--json", "--slower", "0", "--pid", "7").stdout) == [record(SECOND)]


def test_stuck_has_the_calls_of_each_minute(place: Path) -> None:
    result = look(place, "stuck", "--json")
    first, second = lines(result.stdout)
    assert first == {
        "time_ns": START + 3 * MINUTE - 1,
        "stuck": [json.loads(json.dumps(stuck_dict(STUCK_CALL)))],
        "unseen": [],
    }
    assert second["stuck"][0]["pid"] == 70  # type: ignore[index]
    assert result.exit_code == 0
    assert len(lines(look(place, "stuck", "--json", "--fs", "xfs").stdout)) == 1
    assert len(lines(look(place, "stuck", "--json", "-n", "1").stdout)) == 1
    result = look(place, "stuck", "-t", "13s")
    assert (result.stdout, "nothing that was recorded was stuck" in result.stderr) == ("", True)
    text = look(place, "stuck").stdout
    assert "percpu_rwsem_wait" in text and "frozen by" in text


def test_waits_has_the_longest_calls_and_who_froze(place: Path) -> None:
    shown = json.loads(look(place, "waits", "--json", "--slower", "200ms").stdout)
    assert shown["longest"] == [json.loads(json.dumps(event_dict(SLOW[number]))) for number in (0, 2)]
    assert {one["freeze"]["by"]["comm"] for one in shown["waits"]} == {"fsfreeze"}
    text = look(place, "waits").stdout
    assert "longest calls" in text and "/srv/700" in text


def moment(number: int, total: Minute, **more: object) -> dict[str, object]:
    told = {"failures": [], "failures_omitted": number, "stuck": [], **more}
    made: dict[str, object] = {**snapshot_dict(minute(number).counts), **told, "total": total_dict(total.counts)}
    return made


def test_top_in_json_has_what_was_live_byte_for_byte(place: Path) -> None:
    result = look(place, "top", "--json", "--since", at(2), "--until", at(4))
    total = [minute(1), minute(1) + minute(2)]
    total += [total[1] + minute(3)]
    total += [total[2] + minute(4)]
    expected = [
        moment(1, total[0], failures_omitted=1),
        moment(2, total[1], stuck=[stuck_dict(STUCK_CALL)]),
        moment(3, total[2]),
        moment(4, total[3]),
    ]
    assert result.stdout.splitlines() == [json_line(one) for one in expected]
    result = look(place, "top", "--json", "--at", at(1))
    told = moment(1, minute(1), failures=[failure_dict(FIRST)], failures_omitted=0)
    assert result.stdout.splitlines() == [json_line(told)]
    (summed,) = lines(look(place, "top", "--json", "--cumulative").stdout)
    assert isinstance(summed, dict)
    assert sum(one["latency"]["count"] for one in summed["calls"]) == 23
    assert len(summed["failures"]) == 1  # the other is in no minute
    assert len(lines(look(place, "top", "--json", "-n", "2").stdout)) == 2


def test_top_in_text_says_what_happened_besides(place: Path) -> None:
    text = look(place, "top", "--at", at(1)).stdout
    for part in (
        "last 60.0s",
        "1 calls",
        "last failures",
        "postgres",
        "began to record, on Linux 6.12.1",
        "/srv ext4: 0 B free of 1.0 GiB",
    ):
        assert part in text
    text = look(place, "top", "--at", at(2)).stdout
    assert "frozen by fsfreeze[9]" in text and "thawed by thaw[8]" in text and "stuck" in text
    text = look(place, "top", "--at", at(3), "--mount", "/0").stdout
    assert "0 calls" in text


def test_a_time_without_a_minute_says_where_there_is_one(place: Path) -> None:
    result = look(place, "top", "--at", f"@{(START + 5 * MINUTE) // 10**9 + 30}")
    assert result.exit_code == 1
    cure = getattr(result.exception, "cure", "")
    assert "the last ends at" in cure and "the first begins at" in cure


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("top -i 1s", "-i is for what happens now"),
        ("top --at 03:12 --since 03:00", "--at is one moment"),
        ("top --by file", "does not count by process"),
        ("trace -d 1s", "-d is for what happens now"),
        ("trace --slower 1s --cgroup /a", "no cgroup of slow calls"),
        ("stuck -i 1s", "-i is for what happens now"),
        ("stuck --cgroup /a", "no cgroup of stuck calls"),
    ],
)
def test_what_is_for_live_views_alone_is_refused(place: Path, arguments: str, said: str) -> None:
    result = look(place, *arguments.split())
    assert result.exit_code == 2
    assert said in result.output


def test_calls_that_the_tracepoint_backend_did_not_see_are_told(tmp_path: Path) -> None:
    from recorded import LIMITS, WRITER, store

    directory, made = store(tmp_path, LIMITS, {**WRITER, "backend": "tracepoint"})
    made.append(frame(minute(1)))
    made.close()
    directory.close()
    result = look(tmp_path, "stuck")
    assert result.exit_code == 28
    assert "not seen: calls on db7: its backend was tracepoint" in result.stderr


def test_keys_step_through_a_record(place: Path) -> None:
    screen = Screen("top", "--from", str(place), "--at", at(1), columns=140, rows=40)
    try:
        screen.wait_for(ENTER_SCREEN)
        screen.wait_for("1 calls")
        screen.press("\x1b[C")
        screen.wait_for("2 calls")
        screen.press("\x1b[C\x1b[C"[:3])
        screen.wait_for("3 calls")
        screen.press("\x1b[D")
        screen.wait_for("2 calls", 2)
        screen.press("p")
        screen.wait_for("last failures", 2)
        screen.press("p")
        screen.wait_for("there is no failure before this minute")
        screen.press("n")
        screen.wait_for("nothing is recorded at")  # the fifth minute, in which the second failure was
        screen.wait_for("6 calls")
        screen.press("j")
        screen.wait_for("time: _")
        screen.press("+1m\r")
        screen.wait_for("7 calls")
        screen.press("\x1b[C")
        screen.wait_for("nothing is recorded after this minute")
        screen.press("j")
        screen.press("never\r")
        screen.wait_for("'never' is no time")
        screen.press("h")
        screen.wait_for("the failure before, the failure after")
        screen.press("x")
        screen.press("q")
        assert screen.end() == 0
    finally:
        screen.close()
