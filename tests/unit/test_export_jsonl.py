"""JSON shapes: what programs rely on."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from itertools import pairwise

import samples
from hypothesis import given
from hypothesis import strategies as st

from tracer.export.json.records import event_dict, histogram_dict, hook_dict, snapshot_dict, text
from tracer.model.calls import CallEvent, FaultPath, Initiator, Outcome, Series, WpOutcome
from tracer.model.histogram import BUCKETS, LOWER_NS, Histogram
from tracer.model.hooks import Backend, Hook, Loss


def series(mountpoint: str = "/", who: str = "") -> Series:
    """A series of ext4 on 8:1, mounted from /dev/sda1."""
    return replace(samples.series(mountpoint), who=who, source="/dev/sda1")


def test_a_snapshot_has_its_documented_shape() -> None:
    hook = Hook("call", "do_page_mkwrite", Backend.FENTRY, True)
    snapshot = replace(
        samples.snapshot({series(): Histogram.of(1000)}, elapsed_ns=4),
        monotonic_ns=5,
        wp_faults=dict.fromkeys(WpOutcome, 3),
        in_flight=2,
        hooks=(hook,),
        notes=("a\nb",),
    )
    shown = json.loads(json.dumps(snapshot_dict(snapshot)))
    assert shown["calls"] == [
        {
            "fstype": "ext4",
            "mountpoint": "/",
            "mount_source": "/dev/sda1",
            "device": "8:1",
            "handler": "ext4_page_mkwrite",
            "path": "first_write",
            "outcome": "writable",
            "initiator": "user",
            "latency": histogram_dict(Histogram.of(1000)),
        }
    ]
    assert (shown["monotonic_ns"], shown["elapsed_ns"], shown["in_flight"], shown["notes"]) == (5, 4, 2, ["a\nb"])
    assert shown["wp_faults"] == {"shared": 3, "reused": 3, "copied": 3, "unchanged": 3, "failed": 3}
    assert set(shown["lost"]) == {kind.value for kind in Loss}
    assert shown["hooks"] == [hook_dict(hook)]
    assert shown["hooks"][0] == {
        "name": "call",
        "function": "do_page_mkwrite",
        "backend": "fentry",
        "attached": True,
        "detail": "",
        "missed": 0,
    }


def test_series_come_in_a_stable_order_and_who_only_if_asked_for() -> None:
    calls = {series(m, who): Histogram.of(1) for m, who in [("/b", ""), ("/a", "x"), ("/a", "")]}
    shown = snapshot_dict(samples.snapshot(calls))["calls"]
    assert isinstance(shown, list)
    assert [(call["mountpoint"], call.get("who")) for call in shown] == [
        ("/a", None),
        ("/a", "x"),
        ("/b", None),
    ]


def test_a_histogram_shows_its_buckets_that_hold_something() -> None:
    shown = histogram_dict(Histogram.of(0, 70, 70, 1 << 62))
    assert shown["buckets"] == [[0, 63, 1], [64, 76, 2], [LOWER_NS[-1], None, 1]]
    assert (shown["count"], shown["sum_ns"], shown["max_ns"]) == (4, 140 + (1 << 62), 1 << 62)


def test_an_empty_histogram_is_all_zeros() -> None:
    assert histogram_dict(Histogram()) == {
        "count": 0, "sum_ns": 0, "max_ns": 0, "p50_ns": 0, "p90_ns": 0, "p99_ns": 0, "buckets": []
    }  # fmt: skip


@given(st.lists(st.integers(0, 5), min_size=BUCKETS, max_size=BUCKETS))
def test_buckets_in_json_hold_every_call_and_do_not_overlap(counts: list[int]) -> None:
    buckets = histogram_dict(Histogram(tuple(counts)))["buckets"]
    assert isinstance(buckets, list)
    assert sum(number for _, _, number in buckets) == sum(counts)
    for (_, upper, _), (lower, _, _) in pairwise(buckets):
        assert upper < lower


def test_an_event_has_its_documented_shape() -> None:
    event = CallEvent(
        time_ns=1, pid=2, tid=3, uid=4, comm="a\udcffb", cgroup_id=5, fstype="xfs", mountpoint="/m", dev=7,
        inode=8, file="/m/\x1b[1m\\", deleted=True, handler="xfs_filemap_page_mkwrite",
        path=FaultPath.WRITE_PROTECT, initiator=Initiator.REMOTE, outcome=Outcome.SIGBUS, offset=4096,
        address=0x7FFF0000, latency_ns=9, vm_fault=2,
    )  # fmt: skip
    assert json.loads(json.dumps(event_dict(event))) == {
        "time_ns": 1, "pid": 2, "tid": 3, "uid": 4, "comm": "a\\xffb", "cgroup_id": 5, "fstype": "xfs",
        "mountpoint": "/m", "mount_source": "", "device": "0:7", "inode": 8, "file": "/m/\x1b[1m\\\\", "deleted": True,
        "handler": "xfs_filemap_page_mkwrite", "path": "write_protect", "initiator": "remote",
        "outcome": "sigbus", "offset": 4096, "address": "0x7fff0000", "latency_ns": 9,
        "throttled_ns": 0, "vm_fault": 2,
    }  # fmt: skip


@given(st.binary())
def test_the_bytes_of_any_text_can_be_had_back(raw: bytes) -> None:
    shown = json.loads(json.dumps(text(os.fsdecode(raw))))
    shown.encode()  # no surrogate is left
    back = re.sub(
        rb"\\(?:x([0-9a-f]{2})|\\)", lambda m: bytes.fromhex(m[1].decode()) if m[1] else b"\\", shown.encode()
    )
    assert back == raw


@given(st.text(st.characters(exclude_categories=())))
def test_any_string_becomes_valid_utf_8(raw: str) -> None:
    text(raw).encode()
