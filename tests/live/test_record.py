"""The record on a disk that is well, full or frozen: what was counted and told is there afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.guest import ROOT, eventually, frozen, run
from tests.live.refusals import OFFSET, SIZE, VICTIM, Refusal, prepare
from tracer.export.json.records import snapshot_dict
from tracer.model.hooks import Backend
from tracer.model.options import Filters, Options
from tracer.model.snapshot import Snapshot
from tracer.record.minutes import minute_of
from tracer.record.process import Writer
from tracer.record.reading import Account, Span, read
from tracer.record.recorder import Recorder
from tracer.record.segments import Directory
from tracer.record.store import LEAST_SIZE, Limits
from tracer.session import Session

pytestmark = pytest.mark.native
#: An odd prime.
VICTIMS = 7


OURS = {*(f"ext4-record{which}" for which in ("", "-room")), "record-full", "record-mounts"}


def sweep() -> None:
    """What the tests below made is in the way of the next run on the same machine."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = Path(line.split(" ")[4])
        if point.is_relative_to(ROOT) and point.name in OURS:
            run("umount", str(point))
    made = [Path(top, name) for top, dirs, files in os.walk(ROOT) for name in (*dirs, *files)]
    for path in made:
        if path.name.removesuffix(".img") in OURS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture(scope="module")
def full_file() -> Iterator[Path]:
    """A file on a full ext4, on which every store is refused."""
    sweep()
    yield prepare(Refusal("ext4", "ext4", "ENOSPC", size=32), "-record")
    sweep()


def die(file: Path) -> int:
    """Have a process die of SIGBUS; its pid."""
    with subprocess.Popen([VICTIM, "store", str(file), str(SIZE), str(OFFSET)], stdin=subprocess.PIPE) as victim:
        victim.communicate(b"\n")
    assert victim.returncode == -7
    return victim.pid


class Recording:
    """A session on the full file's filesystem, recorded; ``final`` is what it had counted."""

    def __init__(self, session: Session, recorder: Recorder) -> None:
        self.session = session
        self.recorder = recorder
        self.first = session.snapshot()
        self.final: Snapshot | None = None

    def beat(self) -> None:
        self.recorder.beat(self.session.failures(0.1))

    def until(self, true: Callable[[], bool]) -> None:
        def beaten() -> bool:
            self.beat()
            return true()

        assert eventually(beaten, 60)


@contextmanager
def recording(place: Path, file: Path) -> Iterator[Recording]:
    place.chmod(0o750)
    options = Options(Backend.TRACEPOINT, Filters(mounts=(str(file.parent),)))
    with Writer(place, Limits(LEAST_SIZE, 86_400)) as writer, Session(options) as session:
        made = Recording(session, Recorder(session, writer, "test"))
        yield made
        made.final = session.finish()
        made.recorder.end(made.final, session.failures())


def found(place: Path) -> tuple[list[dict[str, Any]], Account]:
    account, directory = Account(), Directory(place)
    try:
        return list(read(directory, Span(0, time.time_ns()), account)), account
    finally:
        directory.close()


def victims(place: Path) -> list[int]:
    return [frame["pid"] for frame in found(place)[0] if frame["kind"] == "failure"]


def test_minutes_add_up_to_what_the_session_counted_and_each_failure_is_there(tmp_path: Path, full_file: Path) -> None:
    with recording(tmp_path, full_file) as recorded:
        died = []
        for _ in range(VICTIMS):
            died.append(die(full_file))
            recorded.beat()
            recorded.recorder.minute()
    frames, account = found(tmp_path)
    minutes = [minute_of(frame) for frame in frames if frame["kind"] == "minute"]
    total = minutes[0]
    for minute in minutes[1:]:
        total += minute
    assert recorded.final is not None
    live = recorded.final.since(recorded.first)
    assert sum(live.failures.values()) == VICTIMS
    assert snapshot_dict(total.counts) == {**snapshot_dict(live), "elapsed_ns": total.counts.elapsed_ns}
    assert victims(tmp_path) == died
    assert (account.damaged, account.gaps) == (0, [])


def test_mounts_and_free_space_are_there(tmp_path: Path, full_file: Path) -> None:
    place = ROOT / "record-mounts"
    place.mkdir(parents=True)
    with recording(tmp_path, full_file) as recorded:
        recorded.beat()
        for command in (("mount", "-t", "tmpfs", "-o", "size=1m", "none"), ("mount", "-o", "remount,ro"), ("umount",)):
            run(*command, str(place))
            recorded.recorder.minute()
    frames = found(tmp_path)[0]
    ours = [frame["kind"] for frame in frames if frame.get("mountpoint") == str(place)]
    assert ours == ["mount", "remount", "umount"]
    (listed,) = (frame for frame in frames if frame["kind"] == "mounts")
    assert {"fstype": "ext4", "mountpoint": str(full_file.parent)}.items() in [
        {name: one[name] for name in ("fstype", "mountpoint")}.items() for one in listed["mounts"]
    ]
    minutes = [minute_of(frame) for frame in frames if frame["kind"] == "minute"]
    (left,) = (left for place, left in minutes[0].space.items() if place.mountpoint == str(full_file.parent))
    status = os.statvfs(full_file.parent)
    assert (left.free, left.total) == (status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)
    assert left.free < 4096
    assert frames[0]["kind"] == "start"


def test_a_full_disk_below_the_record_loses_no_report(tmp_path: Path, full_file: Path) -> None:
    place = ROOT / "record-full"
    place.mkdir(parents=True)
    run("mount", "-t", "tmpfs", "-o", "size=5m,mode=750", "none", str(place))
    with recording(place, full_file) as recorded:
        died = [die(full_file)]
        recorded.until(lambda: victims(place) == died)
        filler = os.open(place, os.O_TMPFILE | os.O_RDWR)
        while True:
            try:
                os.write(filler, bytes(4096))
            except OSError:
                break
        # More than the open segment has room for: the next one's is taken, and the one after it has none.
        for number in range(3):
            recorded.recorder.feed.event({"kind": "note", "time_ns": number + 1, "text": os.urandom(450_000).hex()})
        recorded.until(lambda: recorded.recorder.writer.status.get("errno") != 0)
        died += [die(full_file) for _ in range(VICTIMS)]
        recorded.beat()
        os.close(filler)
    frames, account = found(place)
    assert victims(place) == died
    assert [frame["time_ns"] for frame in frames if frame["kind"] == "note"] == [1, 2, 3]
    assert [(gap["errno"], gap["dropped"]) for gap in account.gaps] == [("ENOSPC", {})]
    assert account.damaged == 0


def test_a_frozen_disk_below_the_record_stops_its_writer_alone(full_file: Path) -> None:
    room = prepare(Refusal("ext4", "ext4", "ENOSPC", size=64, late=True), "-record-room").parent
    place = room / "record"
    place.mkdir()
    with recording(place, full_file) as recorded:
        recorded.until(lambda: bool(recorded.recorder.writer.status))
        with frozen(room):
            died = [die(full_file) for _ in range(VICTIMS)]
            recorded.beat()
            assert victims(place) == []
        recorded.until(lambda: victims(place) == died)
    assert [frame["clean"] for frame in found(place)[0] if frame["kind"] == "end"] == [True]
