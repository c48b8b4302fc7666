"""What tracepoints count: intervals, the view, JSON."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import pytest
from rich.console import Console
from samples import snapshot

from tracer.cli.run import no_calls
from tracer.errors import Exit
from tracer.export.json.records import json_line, snapshot_dict
from tracer.model.calls import Initiator
from tracer.model.snapshot import Throttled, Tracepoints
from tracer.probes.tracepoints import note
from tracer.ui.count import CountView
from tracer.ui.top import TopView

IDLE = Throttled(1, 1, 1)
EARLIER = Tracepoints(1, {Initiator.USER: 10, Initiator.KERNEL: 2}, {"7:0": Throttled(3, 4, 5), "8:0": IDLE})
LATER = {"7:0": Throttled(5, 14, 4101, "/srv"), "8:0": IDLE}
NOW = Tracepoints(4, {Initiator.USER: 110, Initiator.KERNEL: 3}, LATER)
NOTES = (note("kprobe: this kernel has no kprobes"),)
SHOT = replace(snapshot({}), wp_faults={}, notes=NOTES, tracepoints=NOW.since(EARLIER))


def shown(view: object) -> str:
    file = io.StringIO()
    Console(file=file, width=80).print(view)
    return file.getvalue()


def test_an_interval_has_what_came_in_it() -> None:
    assert NOW.since(EARLIER) == Tracepoints(
        3, {Initiator.USER: 100, Initiator.KERNEL: 1}, {"7:0": Throttled(2, 10, 4096)}
    )
    assert replace(SHOT, tracepoints=NOW).since(replace(SHOT, tracepoints=EARLIER)).tracepoints == SHOT.tracepoints


@pytest.mark.parametrize("view", [CountView(SHOT), TopView(SHOT, SHOT)])
def test_views_show_them_and_one_line_of_what_is_missing(view: object) -> None:
    text = shown(view)
    assert "3 SIGBUS, 100 wp faults of programs, 1 of the kernel" in text
    assert "THROTTLED" in text and "/srv (7:0) " in text and not re.search(r"\b8:0\b", text)
    assert "no kprobes" in text and "no calls, latencies or outcomes" in " ".join(text.split())
    assert "WP FAULTS" not in text and "HANDLER" not in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_json() -> None:
    found = json.loads(json_line(snapshot_dict(SHOT)))["tracepoints"]
    assert found == {
        "sigbus": 3,
        "wp_faults": {"user": 100, "kernel": 1},
        "throttled": [{"bdi": "7:0", "mountpoint": "/srv", "pauses": 2, "pause_ns": 10, "dirtied_bytes": 4096}],
    }
    assert "tracepoints" not in snapshot_dict(snapshot({}))


def test_what_needs_calls_says_that_there_are_none() -> None:
    error = no_calls(NOTES[0])
    assert error.code is Exit.NO_HOOKS
    assert "kprobe: this kernel has no kprobes" in error.problem
