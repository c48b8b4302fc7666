"""A failure whose names were all made by an enemy, in every output: nothing acts on a terminal or in a log."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from failure_samples import FULL, REFUSED
from rich.console import Console
from samples import snapshot

from tracer.diagnosis.diagnose import diagnose
from tracer.diagnosis.explainer import Explained, Repeated
from tracer.export.json.failures import explained_dict, record, repeated_dict
from tracer.export.json.records import json_line
from tracer.export.prometheus.failure_ledger import FailureLedger
from tracer.export.prometheus.label import Who
from tracer.model.failures import (
    Actor,
    Class,
    Code,
    Disposition,
    Fact,
    Failure,
    FailureSeries,
    FailureSource,
    Signal,
    Truncation,
)
from tracer.model.host_state import HostState, HugeState
from tracer.ui.sigbus import repeated, report
from tracer.ui.top import TopView
from tracer.ui.trace import TraceLines

NASTY = "<b>\x1b]0;a\x07\n\r\u202e\udcff'$(reboot)"
REFUSAL = replace(
    REFUSED,
    comm=NASTY,
    command=(NASTY, NASTY),
    fstype=NASTY,
    mountpoint=f"/{NASTY}",
    file=f"/{NASTY}",
    handler=NASTY,
    signal=Signal(Code.USER, Disposition.FATAL, 1, Actor(1, 1, NASTY), 0, f"{NASTY}+0x1"),
    truncation=Truncation(REFUSED.time_ns, 0, Actor(77, 77, NASTY), 1),
)
STATE = HostState(
    cgroup=f"/{NASTY}", container=NASTY, module=NASTY, mountpoint=f"/{NASTY}", mount_source=NASTY, limit=NASTY,
    space=FULL, huge=HugeState(2 << 20, 1, 1, 0, f"/{NASTY}", 0),
)  # fmt: skip
FAILURES = {
    "refused": REFUSAL,
    "beyond_end": replace(REFUSAL, source=FailureSource.FAULT, facts=Fact.BEYOND_END, size=0),
    "tmpfs": replace(REFUSAL, source=FailureSource.FAULT, fstype="tmpfs"),
    "hugetlb": replace(REFUSAL, source=FailureSource.HUGETLB),
    "sent": replace(REFUSAL, source=FailureSource.SIGNAL),
    "immutable": replace(REFUSAL, facts=Fact.IMMUTABLE),
    "deleted": replace(REFUSAL, deleted=True, signal=None),
}


@pytest.fixture(params=FAILURES)
def failure(request: pytest.FixtureRequest) -> Failure:
    return FAILURES[request.param]


def test_text_has_nothing_that_a_terminal_acts_on(failure: Failure) -> None:
    explained = Explained(failure, STATE, diagnose(failure, STATE))
    console = Console(width=120, color_system=None)
    with console.capture() as capture:
        console.print(TopView(snapshot({}), snapshot({}), [failure]))
    shown = [
        report(explained, 80).plain,
        repeated(Repeated(explained, 1, 2, 3)).plain,
        TraceLines(None).line(failure).plain,
        capture.get(),
    ]
    for text in shown:
        assert all(line.isprintable() for line in text.split("\n"))
        assert "\udcff" not in text


def test_a_line_of_json_is_one_line_of_ascii_that_keeps_every_byte(failure: Failure) -> None:
    explained = Explained(failure, STATE, diagnose(failure, STATE))
    for line in (explained_dict(explained), record(failure), repeated_dict(Repeated(explained, 1, 2, 3))):
        text = json_line(line)
        assert text.isascii()
        assert text.isprintable()
        assert json.loads(text)["comm"] == NASTY.replace("\udcff", "\\xff")
        assert "udcff" not in text


def test_labels_of_metrics_are_escaped() -> None:
    ledger = FailureLedger(Who(), 10)
    ledger.book({FailureSeries(NASTY, f"/{NASTY}", 1, Class.REFUSED, "ENOSPC"): 1}, set(), {})
    ((refused, number),) = ledger.counts([])
    assert number == 1
    assert all(label.isprintable() for label in (refused.place.fstype, refused.place.mountpoint))
