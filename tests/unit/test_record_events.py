"""What the record has beside counts and reports: mounts, freezes, slow and stuck calls, space, the clock."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from fake_session import FakeSession
from recorded import found, write
from samples import event, snapshot

from tracer.export.json.records import event_dict, stuck_dict
from tracer.host.mounts import Mounts
from tracer.host.space import Space
from tracer.latency.stuck import StuckCall
from tracer.mappings.risk import LimitedFilesystem, LimitKind
from tracer.model.calls import Filesystem
from tracer.model.failures import Actor
from tracer.model.freezes import Freeze
from tracer.model.options import Options
from tracer.model.waits import InFlight, Wait
from tracer.record import recorder as recorder_module
from tracer.record.events import call_of, slow_frame, stuck_frame, stuck_of
from tracer.record.feed import Feed
from tracer.record.minutes import Minute, frame, minute_of
from tracer.record.recorder import Recorder
from tracer.record.watch import MOUNTS, SLOW, STUCK, Watch

HOSTILE = 'a\\x41\udcff\x1b["\n'
FROZE = Freeze(5_000, Actor(7, 8, HOSTILE))
STUCK_CALL = StuckCall(
    InFlight(12_000_000_000, 7, 8, HOSTILE, "ext4", "/srv", 8 << 20 | 1, 77, f"/srv/{HOSTILE}", "h", 4096, Wait.FREEZE),
    False, "freeze", ("percpu_rwsem_wait", "ext4_page_mkwrite"), "server", FROZE,
)  # fmt: skip


def through(made: dict[str, object]) -> dict[str, object]:
    again: dict[str, object] = json.loads(json.dumps(made))
    return again


class Table:
    """Mounts as the test has them."""

    def __init__(self) -> None:
        self.text = b""
        self.changed = False

    def mount(self, *lines: str) -> None:
        self.text, self.changed = "\n".join(lines).encode(), True

    def __bool__(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def read(self) -> Mounts:
        return Mounts.parse(self.text)


def line(number: int, mountpoint: str, options: str = "rw", device: str = "8:1", fstype: str = "ext4") -> str:
    return f"{number} 1 {device} / {mountpoint} {options} - {fstype} /dev/sda1 {options}"


class Session(FakeSession):
    """Freezes and calls in flight are the test's."""

    frozen: dict[Filesystem, Freeze]
    flying: list[InFlight]

    def freezes(self) -> dict[Filesystem, Freeze]:
        return self.frozen

    def in_flight(self) -> list[InFlight]:
        return self.flying


def watch() -> tuple[Session, Table, Watch]:
    session, table = Session(Options(waits=True, slower_ns=1)), Table()
    session.frozen, session.flying = {}, []
    made = Watch(session, lambda: table)  # type: ignore[arg-type, return-value]
    return session, table, made


def kinds(frames: Iterable[dict[str, object]]) -> list[tuple[object, object]]:
    return [(one["kind"], one.get("mountpoint")) for one in frames]


@pytest.mark.parametrize("waits", [{}, {Wait.JOURNAL: 5_000_000}, {Wait.OTHER: 1}])
@pytest.mark.parametrize("throttled_ns", [0, 77])
def test_a_slow_call_is_the_same_when_it_was_written_and_read(waits: dict[Wait, int], throttled_ns: int) -> None:
    call = replace(event(f"/srv/{HOSTILE}", HOSTILE), waits=waits, throttled_ns=throttled_ns)
    made = through(slow_frame(call))
    assert call_of(made) == call
    assert event_dict(call_of(made)) == event_dict(call)


@pytest.mark.parametrize("freeze", [None, FROZE, Freeze(0, None, 9, Actor(1, 2, "b"))])
def test_a_stuck_call_is_the_same_when_it_was_written_and_read(freeze: Freeze | None) -> None:
    for one in (
        replace(STUCK_CALL, freeze=freeze),
        replace(STUCK_CALL, call=replace(STUCK_CALL.call, reason=None), reason="cpu", peer=""),
    ):
        (made,) = through(stuck_frame([one], 5))["stuck"]  # type: ignore[misc]
        assert stuck_of(made) == one
        assert stuck_dict(stuck_of(made)) == stuck_dict(one)


def test_space_and_risk_are_the_same_when_they_were_written_and_read() -> None:
    place = LimitedFilesystem("ext4", HOSTILE, 8 << 20 | 1)
    counts = replace(snapshot({}), failures={}, waits={})
    minute = Minute(1, 2, counts, {place: Space(0, 5, 6, 7)}, {(place, LimitKind.USER, "1000"): (1, 2, -3, 4)})
    assert minute_of(through(frame(minute))) == minute
    later = Minute(2, 3, counts, {place: Space(0, 4, 5, 7)})
    assert (minute + later).space == later.space
    assert (minute + later).risk == minute.risk


def test_space_in_a_record_has_its_labels_once(tmp_path: Path) -> None:
    place = LimitedFilesystem("ext4", "/srv", 8 << 20 | 1)
    minutes = [Minute(n, n + 1, snapshot({}), {place: Space(0, n, n, 9)}) for n in range(1, 4)]
    write(tmp_path, map(frame, minutes))
    assert [minute_of(one).space[place].free for one in found(tmp_path)[0]] == [1, 2, 3]
    assert b"".join(path.read_bytes() for path in tmp_path.glob("*.jsonl")).count(b"/srv") == 1


def test_mounts_unmounts_and_other_options_are_told_as_they_come() -> None:
    _, table, made = watch()
    table.mount(line(1, "/"), line(2, "/proc", fstype="proc"))
    assert kinds(made.mounts()) == []
    table.mount(line(1, "/"), line(3, "/a"), line(4, "/b"))
    assert kinds(made.mounts()) == [("mount", "/a"), ("mount", "/b")]
    assert kinds(made.mounts()) == []
    # The id of what went is that of what came.
    table.mount(line(1, "/"), line(3, "/c"))
    assert kinds(made.mounts()) == [("umount", "/a"), ("umount", "/b"), ("mount", "/c")]
    # Errors make a filesystem read-only without a word.
    table.mount(line(1, "/", "ro"), line(3, "/c"))
    table.changed = False
    (told,) = made.minute()
    assert (told["kind"], told["options"], told["device"]) == ("remount", "ro", "8:1")


def test_a_flood_of_mounts_is_counted() -> None:
    _, table, made = watch()
    table.mount(line(1, "/"))
    assert kinds(made.mounts()) == []
    table.mount(line(1, "/"), *(line(number, f"/{number}") for number in range(2, MOUNTS + 9)))
    *told, left_out = [*made.mounts(), *made.minute()]
    assert kinds(told) == [("mount", f"/{number}") for number in range(2, MOUNTS + 2)]
    assert left_out["events"] == {"mount": 7}
    assert kinds(made.minute()) == []


def test_freezes_and_thaws_are_told_once_each_with_who() -> None:
    session, table, made = watch()
    table.mount(line(1, "/srv"))
    assert kinds(made.mounts()) == []
    session.frozen = {Filesystem(8 << 20 | 1): FROZE}
    (told,) = made.freezes()
    assert (told["kind"], told["time_ns"], told["mountpoint"]) == ("freeze", 5_000, "/srv")
    assert told["by"] == {"pid": 7, "tid": 8, "comm": 'a\\\\x41\\xff\x1b["\n'}
    assert kinds(made.freezes()) == []
    session.frozen = {Filesystem(8 << 20 | 1): replace(FROZE, thawed_ns=9_000, thawed_by=Actor(9, 9, "b"))}
    (told,) = made.freezes()
    assert (told["kind"], told["time_ns"], told["began_ns"]) == ("thaw", 9_000, 5_000)
    # One that came and went between two looks, and one that was there before the hooks.
    both = Freeze(10_000, Actor(7, 7, "a"), 11_000, Actor(9, 9, "b"))
    session.frozen = {Filesystem(8 << 20 | 1): both, Filesystem(3): Freeze(0, None, 5, Actor(9, 9, "b"))}
    assert kinds(made.freezes()) == [("freeze", "/srv"), ("thaw", "/srv"), ("thaw", "")]


def test_the_longest_slow_calls_of_a_minute_are_told_in_order_and_the_others_counted() -> None:
    _, _, made = watch()
    calls = [replace(event(), time_ns=number, latency_ns=number * 7919 % 101) for number in range(101)]
    for begin in range(0, 101, 13):
        made.note(calls[begin : begin + 13])
    *told, left_out = made.minute()
    longest = sorted(sorted(call.latency_ns for call in calls)[-SLOW:])
    assert sorted(one["latency_ns"] for one in told) == longest
    assert [one["time_ns"] for one in told] == sorted(one["time_ns"] for one in told)
    assert left_out["events"] == {"slow": 101 - SLOW}
    assert list(made.minute()) == []


def test_stuck_calls_are_told_each_minute_the_oldest_first() -> None:
    session, _, made = watch()
    call = replace(STUCK_CALL.call, reason=Wait.JOURNAL)
    session.flying = [replace(call, age_ns=(40 - number) * 10**9, tid=number) for number in range(40)]
    told, left_out = made.minute()
    assert [one["tid"] for one in told["stuck"]] == list(range(STUCK))
    assert left_out["events"] == {"stuck": 31 - STUCK}
    session.flying = [replace(call, age_ns=9 * 10**9)]
    assert list(made.minute()) == []


class Writer:
    """A writer that takes everything."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def listen(self, feed: Feed) -> None:
        pass


@pytest.mark.parametrize("step_s", [-600, 600])
def test_a_step_of_the_clock_ends_a_minute_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    now = [1_700_000_000 * 10**9 + 7]
    monkeypatch.setattr("time.time_ns", lambda: now[0])
    monkeypatch.setattr(recorder_module, "_set_ns", lambda: now[0])
    session = Session(Options(waits=True))
    session.frozen, session.flying = {}, []
    path = tmp_path / "frames"
    with path.open("wb") as stream:
        made = Recorder(session, Writer(stream.fileno()), "test")  # type: ignore[arg-type]
        made.beat([])
        now[0] += step_s * 10**9
        made.beat([])
        made.beat([])
    frames = [json.loads(one) for one in path.read_bytes().splitlines()]
    (clock,) = (one for one in frames if one["kind"] == "clock")
    assert clock["step_ns"] == step_s * 10**9 == clock["time_ns"] - clock["before_ns"]
    (minute,) = (one for one in frames if one["kind"] == "minute")
    assert minute["from_ns"] == minute["time_ns"] == clock["before_ns"]
    place = tmp_path / "record"
    place.mkdir()
    after = {**minute, "from_ns": now[0], "time_ns": now[0] + 60 * 10**9}
    write(place, [clock, minute, after])
    account = found(place)[1]
    assert [step["step_ns"] for step in account.steps] == [step_s * 10**9]
    assert len(account.holes) == 1  # before the first minute


def test_no_flood_of_events_takes_the_room_of_reports(tmp_path: Path) -> None:
    import os

    read, write_to = os.pipe()
    feed = Feed(write_to)
    big = "x" * 10_000
    for number in range(1000):
        feed.event({"kind": "mount", "time_ns": number, "text": big})
    feed.event({"kind": "failure", "time_ns": 1, "text": big})
    feed.end({"kind": "end", "time_ns": 2, "clean": True})
    assert feed.dropped["mount"] > 0
    assert feed.dropped["failure"] == 0
    told = b""
    while not feed.empty:
        told += os.read(read, 1 << 20)
        feed.pump()
    os.set_blocking(read, False)
    told += os.read(read, 1 << 20)
    frames = [json.loads(one) for one in told.splitlines()]
    assert [one["kind"] for one in frames][-2:] == ["gap", "end"]
    assert frames[-2]["dropped"] == {"mount": feed.dropped["mount"]}
    assert sum(one["kind"] == "mount" for one in frames) + feed.dropped["mount"] == 1000
    assert [one["time_ns"] for one in frames if one["kind"] == "failure"] == [1]
