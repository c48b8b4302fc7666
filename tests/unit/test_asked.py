"""What a session was not asked for is never told as nothing, and options that do nothing are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from samples import series, snapshot

from tracer.errors import UsageError
from tracer.export.json.records import snapshot_dict
from tracer.export.prometheus.collector import MkwriteCollector
from tracer.latency.breakdown import breakdowns
from tracer.model.asked import FAILURES, WAITS
from tracer.model.failures import Class, FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.hooks import Backend
from tracer.model.mounts import Mount
from tracer.model.options import By, Filters, Options
from tracer.model.snapshot import Snapshot

LEAN = replace(snapshot({series(): Histogram.of(4000)}), failures=FAILURES, waits=WAITS)


def test_failures_are_told_unless_that_is_declined() -> None:
    assert Options().failures


@pytest.mark.parametrize(
    ("use", "option"),
    [
        (lambda: dict(LEAN.failures), r"Options\(failures=True\)"),
        (lambda: len(LEAN.failures), r"Options\(failures=True\)"),
        (lambda: bool(LEAN.failures), r"Options\(failures=True\)"),
        (lambda: LEAN.since(LEAN).failures.items(), r"Options\(failures=True\)"),
        (lambda: LEAN.waits.get("journal"), r"Options\(waits=True\)"),
        (lambda: list(LEAN.since(LEAN).waits), r"Options\(waits=True\)"),
        (lambda: breakdowns(LEAN), r"Options\(waits=True\)"),
    ],
)
def test_counts_that_were_not_asked_for_raise_and_name_the_option(use: Callable[[], object], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        list(use())  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"every_errno": True, "failures": False}, "every_errno"),
        ({"all_writes": True, "failures": False}, "all_writes"),
        ({"backend": Backend.TRACEPOINT, "waits": True}, "waits"),
        ({"backend": Backend.TRACEPOINT, "slower_ns": 0}, "slower_ns"),
        ({"backend": Backend.TRACEPOINT, "every_errno": True}, "every_errno"),
    ],
)
def test_options_that_do_nothing_together_are_refused_by_name(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=f"{named} does nothing") as refused:
        Options(**options)
    assert named in refused.value.cure


@pytest.mark.parametrize(("name", "value"), [("fs", "ext4"), ("mounts", "/srv"), ("pids", 4242), ("comms", ["db"])])
def test_a_filter_that_is_no_tuple_is_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"Filters\({name}="):
        Filters(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "value"), [("pids", "42"), ("fs", 5), ("comms", b"db"), ("mounts", None)])
def test_a_filter_of_another_type_is_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"Filters\({name}=.*, which is no"):
        Filters(**{name: (value,)})  # type: ignore[arg-type]


def test_names_of_backends_and_labels_are_taken_for_what_they_name() -> None:
    options = Options(backend="kprobe", by="process")  # type: ignore[arg-type]
    assert options.backend is Backend.KPROBE
    assert options.by is By.PROCESS
    with pytest.raises(UsageError, match="waits does nothing"):
        Options(backend="tracepoint", waits=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [("backend", "ftrace"), ("backend", 1), ("by", "nobody"), ("by", ""), ("slower_ns", -1), ("slower_ns", 0.5),
     ("max_series", 0), ("max_series", None), ("max_series", "4096")],
)  # fmt: skip
def test_an_option_that_means_nothing_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name}={value!r}"):
        Options(**{name: value})  # type: ignore[arg-type]


class Source:
    """Always the same snapshot."""

    def __init__(self, taken: Snapshot) -> None:
        self._taken = taken

    def snapshot(self) -> Snapshot:
        return self._taken


def samples_of(taken: Snapshot) -> dict[str, int]:
    mount = Mount(1, 8 << 20 | 1, "/", "/srv", ("rw",), "ext4", "/dev/sda1", ("rw",))
    families = MkwriteCollector(Source(taken), "test", mounts=lambda: [mount]).collect()
    return {family.name: len(family.samples) for family in families}


def test_metrics_have_no_zeros_for_what_was_not_asked_for() -> None:
    lean, full = samples_of(LEAN), samples_of(replace(LEAN, failures={}, waits={}))
    assert full["mkwrite_failures"] and full["mkwrite_wait_seconds"]
    assert (lean["mkwrite_failures"], lean["mkwrite_wait_seconds"]) == (0, 0)
    assert lean["mkwrite_up"] == 1


def test_json_has_counts_of_failures_where_they_were_asked_for() -> None:
    sent = FailureSeries("", "", 0, Class.SENT, "")
    full = FailureSeries("ext4", "/srv", 8 << 20 | 1, Class.REFUSED, "ENOSPC", "db[7]")
    assert "failure_counts" not in snapshot_dict(LEAN)
    assert snapshot_dict(replace(LEAN, failures={full: 3, sent: 2}))["failure_counts"] == [
        {"fstype": "", "mountpoint": "", "device": None, "class": "sent", "errno": None, "count": 2},
        {
            "fstype": "ext4", "mountpoint": "/srv", "device": "8:1", "class": "refused", "errno": "ENOSPC",
            "who": "db[7]", "count": 3,
        },
    ]  # fmt: skip
