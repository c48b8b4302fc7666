"""What only hooks see, in the record: who froze what, the call that waited for it, and how long."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.guest import HANDLERS, Backend, frozen
from tests.live.slow_disk import Waiter
from tests.live.test_record import found
from tracer.export.json.records import stuck_dict
from tracer.model.options import Options
from tracer.model.waits import Wait
from tracer.record import watch
from tracer.record.events import call_of, stuck_of
from tracer.record.minutes import minute_of
from tracer.record.process import Writer
from tracer.record.recorder import Recorder
from tracer.record.store import LEAST_SIZE, Limits
from tracer.session import Session

SLOWER_NS = 1_000_000


def test_a_freeze_and_the_calls_that_wait_for_it(
    backend: Backend, mounts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "STUCK_NS", SLOWER_NS)
    place = mounts["ext4"]
    tmp_path.chmod(0o750)
    options = Options(backend, waits=True, slower_ns=SLOWER_NS)
    with (
        Waiter(place / "recorded", 7) as waiter,
        Writer(tmp_path, Limits(LEAST_SIZE, 86_400)) as writer,
        Session(options) as session,
    ):
        recorder = Recorder(session, writer, "test")
        first = session.snapshot()
        recorder.beat([])
        with frozen(place):
            waiter.store(5)
            waiter.blocked()
            recorder.minute()
        took = waiter.took()
        recorder.beat(session.events())
        final = session.finish()
        recorder.end(final, session.events())
    frames = found(tmp_path)[0]
    (freeze,) = (frame for frame in frames if frame["kind"] == "freeze")
    (thaw,) = (frame for frame in frames if frame["kind"] == "thaw")
    assert (freeze["by"]["comm"], thaw["by"]["comm"]) == ("fsfreeze", "fsfreeze")
    assert (freeze["mountpoint"], thaw["began_ns"]) == (str(place), freeze["time_ns"])
    (stuck,) = (one for frame in frames if frame["kind"] == "stuck" for one in frame["stuck"])
    assert stuck_dict(stuck_of(stuck)) == stuck
    assert (stuck["pid"], stuck["reason"], stuck["handler"]) == (waiter.pid, "freeze", HANDLERS["ext4"])
    assert stuck["freeze"]["by"] == freeze["by"]
    (slow,) = (call_of(frame) for frame in frames if frame["kind"] == "slow" and frame["pid"] == waiter.pid)
    assert (slow.file, slow.offset) == (str(place / "recorded"), 5 * 4096)
    assert waiter.slept <= slow.waits[Wait.FREEZE] <= slow.latency_ns <= took
    assert freeze["time_ns"] < slow.time_ns
    minutes = [minute_of(frame) for frame in frames if frame["kind"] == "minute"]
    total = minutes[0]
    for minute in minutes[1:]:
        total += minute
    live = final.since(first)
    assert total.counts.calls == live.calls
    assert total.counts.waits == live.waits
