"""An incident is told whole once, and then counted, however many processes and files there are."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest
from failure_samples import REFUSED

from tracer.diagnosis.classes import decide
from tracer.diagnosis.diagnose import diagnose
from tracer.diagnosis.explainer import Explained, Explainer
from tracer.export.json.failures import explained_dict, repeated_dict
from tracer.export.json.records import json_line
from tracer.model.failures import Actor, Burst, Code, Disposition, Fact, Failure, FailureSource, Signal
from tracer.model.host_state import HostState
from tracer.ui.sigbus import repeated, report

SECOND = 1_000_000_000
CUT = decide(replace(REFUSED, source=FailureSource.FAULT, facts=Fact.BEYOND_END, size=0))


class NoHost:
    """Stands for the host, which is not asked; ``asked`` counts how often it would have been."""

    def __init__(self) -> None:
        self.asked = 0

    def read(self, failure: Failure) -> HostState:
        self.asked += 1
        return HostState()


def explainer(monkeypatch: pytest.MonkeyPatch, every: bool = False, now_ns: int = 0) -> tuple[Explainer, NoHost]:
    """An explainer whose clock stands still."""
    monkeypatch.setattr("tracer.diagnosis.explainer.time.monotonic_ns", lambda: now_ns)
    made, host = Explainer(lambda failure: False, every), NoHost()
    monkeypatch.setattr(made, "_reader", host)
    return made, host


def workers(number: int, **changes: object) -> list[Failure]:
    """Failures of one file in so many processes, a millisecond apart."""
    one = replace(CUT, **changes)  # type: ignore[arg-type]
    return [
        replace(one, pid=100 + n, tid=100 + n, process=100 + n, time_ns=CUT.time_ns + n * 1_000_000)
        for n in range(number)
    ]


def sent(pid: int, after_ns: int = 0, sender: int | None = None, comm: str = "python3", parent: int = 0) -> Failure:
    """A signal that a process sends, to itself unless that is said."""
    by = Actor(pid if sender is None else sender, 1, comm if sender is None else "kill")
    signal = Signal(Code.TKILL, Disposition.FATAL, 0, by)
    return decide(
        replace(REFUSED, source=FailureSource.SIGNAL, kernel_error=0xFFFFFFFA, signal=signal, pid=pid, tid=pid,
                process=pid, comm=comm, dev=0, inode=0, file="", time_ns=CUT.time_ns + after_ns, parent=parent)
    )  # fmt: skip


def counts(failures: Iterable[Failure], each: int = 1) -> dict[Burst, int]:
    return {failure.burst: each for failure in failures}


def test_a_hundred_workers_that_die_on_one_file_are_one_report_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, host = explainer(monkeypatch)
    failures = workers(100)
    (first,) = explained.explain(failures)
    (more,) = explained.repeats(counts(failures))
    assert (first.failure, host.asked) == (failures[0], 1)
    assert (more.count, more.total, more.processes, more.files) == (99, 100, 100, 1)
    assert [victim.pid for victim in more.last] == [197, 198, 199]
    line = repeated(more).plain
    assert ": 99 more like it in 0ns, 100 so far: 100 processes, the last postgres[197], postgres[198], " in line
    assert line.endswith("postgres[199]: beyond_end on /srv/data")
    record = json.loads(json_line(repeated_dict(more)))
    assert (record["count"], record["processes"], record["last"][2]["pid"]) == (99, 100, 199)
    assert list(explained.repeats(counts(failures))) == []
    (again,) = explained.repeats(counts(failures, each=3))
    assert (again.count, again.total) == (200, 300)


def test_a_count_has_the_time_of_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, _ = explainer(monkeypatch)
    last = replace(CUT, time_ns=CUT.time_ns + 8 * SECOND)
    list(explained.explain([CUT, last]))
    (more,) = explained.repeats({CUT.burst: 3})
    assert repeated_dict(more)["last_time_ns"] == last.time_ns
    assert repeated(more).plain.split()[1] != repeated(replace(more, last=(CUT,))).plain.split()[1]


def test_a_fault_that_was_caught_and_then_kills_is_told_to_have_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, _ = explainer(monkeypatch)
    caught = replace(CUT, signal=Signal(Code.ADRERR, Disposition.CAUGHT, 1))
    fatal = replace(CUT, time_ns=CUT.time_ns + 2_100_000)
    list(explained.explain([caught, fatal]))
    (more,) = explained.repeats({CUT.burst: 2})
    assert repeated(more).plain.endswith("/srv/data; postgres[4242] dies of the last one, 2.1ms after it was caught")
    last = json.loads(json_line(repeated_dict(more)))["last"]
    assert last == [{"pid": 4242, "comm": "postgres", "time_ns": fatal.time_ns, "disposition": "fatal"}]
    went_on = replace(more, last=(caught,))
    assert repeated(went_on).plain.endswith("beyond_end on /srv/data")


def test_what_the_kernel_has_forgotten_by_then_is_counted_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, _ = explainer(monkeypatch)
    list(explained.explain(workers(9_001)))
    (more,) = explained.repeats({})
    assert (more.total, more.processes) == (9_001, 9_001)


def test_three_thousand_files_are_twenty_reports_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, host = explainer(monkeypatch)
    failures = [replace(CUT, inode=n, file=f"/srv/{n}") for n in range(3_000)]
    told = list(explained.explain(failures))
    assert [one.failure.inode for one in told] == list(range(20))
    assert host.asked == 20
    (more,) = explained.repeats(counts(failures))
    assert (more.count, more.total, more.files, more.other) == (2_980, 2_980, 2_980, True)
    assert repeated(more).plain.endswith("postgres[4242] beyond_end on 2980 other files of /srv")
    monkeypatch.setattr("tracer.diagnosis.explainer.time.monotonic_ns", lambda: 2 * SECOND)
    later = [replace(CUT, inode=n) for n in range(5_000, 5_003)]
    assert [one.failure.inode for one in explained.explain(later)] == [5_000, 5_001]


def test_json_has_a_line_for_each_process_up_to_its_rate_and_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, host = explainer(monkeypatch, every=True)
    failures = workers(250)
    assert len(list(explained.explain(failures))) == 100 == host.asked
    (more,) = explained.repeats(counts(failures))
    assert (more.count, more.total) == (150, 250)


def test_programs_that_are_sent_a_signal_are_one_incident_for_each_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, _ = explainer(monkeypatch)
    failures = [sent(n, sender=n + 50) for n in (2, 3, 4)]
    failures += [sent(n, sender=n + 50, comm="other") for n in (5, 6)]
    assert [one.failure.comm for one in explained.explain(failures)] == ["python3", "other"]


def test_a_signal_that_is_raised_again_names_the_report_of_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of faulthandler, and of timeout(1), which ends as its child did."""
    explained, host = explainer(monkeypatch)
    fault = replace(CUT, pid=9, comm="python3", signal=Signal(Code.ADRERR, Disposition.CAUGHT, 1), parent=8)
    itself, outer = sent(9, 9_000_000, parent=8), sent(8, 11_000_000, comm="timeout", parent=1)
    first, again, of_child = explained.explain([fault, itself, outer])
    assert host.asked == 1
    assert again.again is not None and of_child.again is not None
    assert (again.again.first, again.again.of_child) == (first, False)
    assert (of_child.again.first, of_child.again.of_child) == (first, True)
    lines = [report(one, 80).plain for one in (again, of_child)]
    assert all("\n" not in line and "remedy" not in line for line in lines)
    moment = report(first, 80).plain.split("  ")[0].removeprefix("SIGBUS ")
    assert f"to itself: the SIGBUS of {moment} on /srv/data, which it had met, 9.0ms later; " in lines[0]
    assert lines[0].endswith("it dies of this one")
    assert lines[1].endswith("which its child died of, 11.0ms later; it dies of this one")
    record = explained_dict(of_child)
    assert record["raised_again"] == {
        "first_time_ns": fault.time_ns, "first_pid": 9, "of_child": True, "after_ns": 11_000_000
    }  # fmt: skip


def test_signals_that_are_raised_again_are_counted_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    explained, _ = explainer(monkeypatch)
    faults = workers(5)
    raised = [sent(fault.pid, 50_000_000) for fault in faults]
    told = list(explained.explain([*faults, *raised]))
    assert [one.again is not None for one in told] == [False, True]
    found = list(explained.repeats(counts([*faults, *raised])))
    assert [(more.count, more.total, more.first.again is not None) for more in found] == [(4, 5, False), (4, 5, True)]
    assert "4 more raised again in " in repeated(found[1]).plain


@pytest.mark.parametrize(
    "failures",
    [
        [sent(9)],
        [CUT, sent(CUT.pid + 1)],
        [replace(CUT, parent=8, signal=Signal(Code.ADRERR, Disposition.CAUGHT, 1)), sent(8)],
        [CUT, sent(CUT.pid, 61 * SECOND)],
        [CUT, sent(CUT.pid, sender=7)],
        [sent(9), sent(9, 5)],
    ],
)
def test_no_other_signal_is_taken_for_one_that_is_raised_again(
    monkeypatch: pytest.MonkeyPatch, failures: list[Failure]
) -> None:
    explained, _ = explainer(monkeypatch)
    assert [one.again for one in explained.explain(failures)] == [None] * len(dict(counts(failures)))


def test_json_of_a_sent_signal_has_nothing_of_a_fault() -> None:
    state = HostState()
    record = explained_dict(Explained(sent(9), state, diagnose(sent(9), state)))
    absent = {"write", "path", "initiator", "file", "inode", "device", "offset", "handler", "vm_fault", "truncated"}
    assert absent.isdisjoint(record)
    assert absent <= explained_dict(Explained(CUT, state, diagnose(CUT, state))).keys()
    assert record["raised_again"] is None
