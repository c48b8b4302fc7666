"""A recorded report is the live one: in JSON byte for byte, in text word for word."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from failure_samples import FULL, REFUSED, refused
from test_hostile_failure import FAILURES, STATE
from test_writeback import LOST

from tracer.diagnosis.classes import decide
from tracer.diagnosis.diagnose import diagnose
from tracer.diagnosis.explainer import Again, Explained, Explainer, Notified
from tracer.export.json.failures import explained_dict, notified_dict, repeated_dict
from tracer.export.json.records import json_line
from tracer.model.calls import Initiator
from tracer.model.failures import Actor, Class, Code, Diagnosed, Disposition, Fact, Failure, FailureSource, Signal
from tracer.model.host_state import ChunkState, FileState, HostState, HugeState, QuotaState
from tracer.model.writeback import FileLoss, Told
from tracer.record.incidents import Incidents
from tracer.record.reports import explained_of, failure_frame, report_of
from tracer.ui.sigbus import notified, repeated, report

WHOLE = HostState(
    after_ns=7, running=True, enter=None, space=FULL,
    chunks=(ChunkState("data", 5, 3), ChunkState("unallocated", 2, 2)),
    quotas=(QuotaState("user", 7, 0, 1 << 20),), huge=HugeState(2 << 20, 1, 0, 0, "/a", 0, 3),
    file=FileState(1 << 20, 4096, "hole"), mount_source="server:/export", read_only=True, limit="64k",
)  # fmt: skip
SENT = replace(
    REFUSED, verdict=Diagnosed(Class.SENT), source=FailureSource.SIGNAL, inode=0, file="",
    time_ns=REFUSED.time_ns + 10**9,
    signal=Signal(Code.TKILL, Disposition.FATAL, 0, Actor(4242, 4243, "postgres"), 7, "libc.so.6+0x1"),
)  # fmt: skip
SAMPLES: dict[str, tuple[Failure, HostState]] = {
    **{name: (failure, STATE) for name, failure in FAILURES.items() if name != "sent"},
    "sent, by a hostile name": (decide(replace(FAILURES["sent"], inode=0, file="")), STATE),
    "whole": (refused(errno.EDQUOT, command=("a b", "c"), command_cut=True), WHOLE),
    "bare": (REFUSED, HostState()),
    "thread": (refused(errno.ENOSPC, process_comm="main", namespace_pid=3), WHOLE),
    "call": (refused(errno.EIO, signal=None, initiator=Initiator.KERNEL, syscall=17, latency_ns=12_345), WHOLE),
    "unlisted call": (refused(errno.EIO, signal=None, initiator=Initiator.KERNEL, syscall=400), WHOLE),
    "read": (replace(REFUSED, source=FailureSource.FAULT, write=False, inferred=True), WHOLE),
    "overridden": (refused(errno.ENOSPC, overridden=Disposition.BLOCKED), WHOLE),
    "sent to itself": (SENT, HostState()),
    "lost": (LOST, WHOLE),
    "lost, and recorded for nobody": (decide(replace(LOST, facts=Fact.UNRECORDED)), WHOLE),
}


def explained(failure: Failure, state: HostState) -> Explained:
    return Explained(failure, state, diagnose(failure, state))


def frame_of(one: Explained) -> dict[str, object]:
    """Its frame, as it is read again."""
    made: dict[str, object] = json.loads(json.dumps(failure_frame(one)))
    return made


@pytest.mark.parametrize("name", SAMPLES)
def test_a_report_is_the_same_when_it_was_written_and_read(name: str) -> None:
    live = explained(*SAMPLES[name])
    frame = frame_of(live)
    assert json_line(report_of(frame)) == json_line(explained_dict(live))
    assert report(explained_of(frame), 90).plain == report(live, 90).plain


@pytest.mark.parametrize("of_child", [False, True])
def test_a_signal_that_was_raised_again_names_the_first(of_child: bool) -> None:
    first = explained(REFUSED, WHOLE)
    again = replace(explained(SENT, HostState()), again=Again(first, of_child))
    incidents = Incidents()
    shown = list(incidents.explain([frame_of(first), frame_of(again)]))
    assert [report(one, 90).plain for one in shown] == [report(one, 90).plain for one in (first, again)]
    (alone,) = Incidents().explain([frame_of(again)])
    assert report(alone, 90).plain == report(again, 90).plain.replace(" on /srv/data", "")


def crowd() -> Iterator[Failure]:
    """Seven processes that meet the same full filesystem, the third of them three times."""
    for number in (1, 2, 3, 3, 3, 4, 5, 6, 7):
        yield refused(errno.ENOSPC, pid=number, tid=number, process=number, time_ns=REFUSED.time_ns + number * 10**9)


@pytest.mark.parametrize("told", [None, Told(9, Actor(7, 8, "db"), errno.ENOSPC, 26, 3, 11)])
def test_a_loss_at_writeback_keeps_what_was_lost_and_who_was_told(told: Told | None) -> None:
    for loss in (FileLoss(5, 9, 3, told, 3, 8192, 4096, 16384), FileLoss(5, 9, 3, told)):
        live = replace(explained(LOST, WHOLE), loss=loss)
        frame = frame_of(live)
        assert report(explained_of(frame), 90).plain == report(live, 90).plain
        assert json_line(report_of(frame)) == json_line(explained_dict(live))
        for news in (Notified(live, loss, told), Notified(live, replace(loss, forgotten_ns=12), None)):
            shown = list(Incidents().explain([frame, json.loads(json.dumps(notified_dict(news)))]))
            assert isinstance(shown[1], Notified) and notified(shown[1]).plain == notified(news).plain


def test_a_crowd_is_one_incident_and_a_count_as_it_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.host.state.StateReader.read", lambda reader, failure: WHOLE)
    told, counted = Explainer(lambda failure: False), Explainer(lambda failure: False, every=True)
    live = [report(one, 90).plain for one in told.explain(crowd())]
    bursts = {failure.burst: 3 if failure.pid == 3 else 1 for failure in crowd()}
    (more,) = told.repeats(bursts)

    recorded = [frame_of(one) for one in counted.explain(crowd())]
    recorded += [json.loads(json.dumps(repeated_dict(one))) for one in counted.repeats(bursts)]
    assert len(recorded) == 7 + 1
    incidents = Incidents()
    assert [report(one, 90).plain for one in incidents.explain(recorded)] == live
    (again,) = incidents.repeats()
    assert (again.count, again.total, again.processes, again.files) == (8, 9, 7, 1)
    assert (more.count, more.total, more.processes, more.files) == (8, 9, 7, 1)
    # All but the time that the live one has counted for, which is that of this test.
    assert repeated(again).plain.split(" in 6.00s, ") == re.split(r" in [0-9.]+[a-z]+, ", repeated(more).plain)


def test_a_count_whose_report_is_not_in_the_span_stands_for_itself() -> None:
    explainer = Explainer(lambda failure: False)
    failure = refused(errno.ENOSPC)
    list(explainer.explain([failure]))
    (more,) = explainer.repeats({failure.burst: 5})
    incidents = Incidents()
    assert list(incidents.explain([repeated_dict(more)])) == []
    (one,) = incidents.repeats()
    assert "4 more like it" in repeated(one).plain and "refused ENOSPC on /srv/data" in repeated(one).plain
