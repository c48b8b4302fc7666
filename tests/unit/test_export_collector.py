"""Metrics from hand-made snapshots: what is counted, and what begins at zero."""

from __future__ import annotations

import mmap
import os
import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.registry import CollectorRegistry
from scraped import EXT4, Source, collector, mounted, scrape, shot, value

from tracer.errors import MkwriteError
from tracer.export.prometheus.collector import MkwriteCollector
from tracer.host.mounts import Mounts
from tracer.model.calls import FaultPath, Initiator, Outcome, WpOutcome
from tracer.model.failures import Class, FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.hooks import Loss
from tracer.model.options import Filters
from tracer.model.snapshot import Snapshot
from tracer.model.waits import Wait, WaitSeries, WaitTime


def test_a_call_is_counted_under_all_its_labels() -> None:
    samples = scrape(collector(shot({EXT4: Histogram.of(1000, 2000, 3000)})))
    assert samples["mkwrite_calls_total"] == [
        (
            {
                "fstype": "ext4",
                "mountpoint": "/srv",
                "device": "8:1",
                "handler": "ext4_page_mkwrite",
                "path": "first_write",
                "initiator": "user",
                "outcome": "writable",
            },
            3,
        )
    ]


def test_latency_is_in_seconds_and_merges_outcomes_and_initiators() -> None:
    other = replace(EXT4, outcome=Outcome.RACED, initiator=Initiator.REMOTE, who="x[1]")
    samples = scrape(collector(shot({EXT4: Histogram.of(1500), other: Histogram.of(3_000_000, 90 * 10**9)})))
    ((labels, count),) = samples["mkwrite_call_latency_seconds_count"]
    assert set(labels) == {"fstype", "mountpoint", "device", "handler", "path"}
    assert count == 3
    assert value(samples, "mkwrite_call_latency_seconds_sum") == pytest.approx(90.0030015)
    assert value(samples, "mkwrite_call_latency_seconds_bucket", le="1.024e-06") == 0
    assert value(samples, "mkwrite_call_latency_seconds_bucket", le="2.048e-06") == 1
    assert value(samples, "mkwrite_call_latency_seconds_bucket", le="0.002097152") == 1
    assert value(samples, "mkwrite_call_latency_seconds_bucket", le="0.004194304") == 2
    assert value(samples, "mkwrite_call_latency_seconds_bucket", le="34.359738368") == 2
    assert value(samples, "mkwrite_call_latency_seconds_bucket", le="+Inf") == 3


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 1 << 40), max_size=30))
def test_every_bucket_counts_exactly_the_calls_below_its_bound(latencies: list[int]) -> None:
    samples = scrape(collector(shot({EXT4: Histogram.of(*latencies)})))
    buckets = [(float(labels["le"]), n) for labels, n in samples["mkwrite_call_latency_seconds_bucket"]]
    assert buckets == sorted(buckets)
    for seconds, number in buckets:
        assert number == sum(ns < seconds * 1e9 - 0.5 for ns in latencies)


def test_failures_have_class_and_errno_and_start_at_zero() -> None:
    full = FailureSeries("ext4", "/srv", 1, Class.REFUSED, "ENOSPC")
    source = collector(replace(shot(), failures={full: 2}), mounts=mounted("/srv"))
    found = {(labels["class"], labels["errno"]): number for labels, number in scrape(source)["mkwrite_failures_total"]}
    assert found.pop(("refused", "ENOSPC")) == 2
    assert {("refused", "EDQUOT"), ("refused", "EIO"), ("beyond_end", ""), ("media_error", "EIO")} <= found.keys()
    assert set(found.values()) == {0}


def test_who_was_told_of_lost_writes_is_counted_from_zero_and_never_goes_back() -> None:
    source = collector(shot(), replace(shot(), told=3), replace(shot(), told=2))
    assert [value(scrape(source), "mkwrite_writeback_told_total") for _ in range(3)] == [0, 3, 3]


def test_errors_that_were_forgotten_untold_are_counted_from_zero() -> None:
    source = collector(shot(), replace(shot(), forgotten=2))
    assert [value(scrape(source), "mkwrite_writeback_forgotten_total") for _ in range(2)] == [0, 2]


def test_failures_of_a_mount_are_there_before_the_first_call() -> None:
    table = [
        b"1 1 8:1 / /srv rw - ext4 /dev/sda1 rw",
        b"2 1 8:1 /part /bind rw - ext4 /dev/sda1 rw",
        b"3 1 8:2 / /cd ro - iso9660 /dev/sr0 ro",
        b"4 1 0:9 / /proc rw - proc proc rw",
        b"5 1 0:40 / /net rw - fuse.sshfs host: rw",
    ]
    samples = scrape(collector(shot(), mounts=Mounts.parse(b"\n".join(table))))
    found = {(labels["fstype"], labels["mountpoint"], n) for labels, n in samples["mkwrite_failures_total"]}
    assert found == {("ext4", "/srv", 0), ("fuse", "/net", 0)}


def test_known_label_values_start_at_zero() -> None:
    samples = scrape(collector(shot()))
    assert {labels["outcome"]: n for labels, n in samples["mkwrite_wp_faults_total"]} == dict.fromkeys(WpOutcome, 0)
    assert {labels["kind"]: n for labels, n in samples["mkwrite_lost_total"]} == dict.fromkeys(Loss, 0)


def test_the_tracer_tells_of_itself() -> None:
    samples = scrape(collector(shot(wp=7, lost=5)))
    assert value(samples, "mkwrite_up") == 1
    assert value(samples, "mkwrite_inflight") == 3
    assert value(samples, "mkwrite_wp_faults_total", outcome="copied") == 7
    assert value(samples, "mkwrite_lost_total", kind="events_full") == 5
    assert value(samples, "mkwrite_hooks_attached", backend="fentry") == 1
    assert [labels["hook"] for labels, _ in samples["mkwrite_hook_attached"]] == ["wp"]
    assert value(samples, "mkwrite_hook_attached", hook="wp", function="do_wp_page", reason="kernel") == 0
    assert value(samples, "mkwrite_scrape_duration_seconds") >= 0
    ((build, _),) = samples["mkwrite_build_info"]
    assert build == {"version": "1.2.3", "backend": "fentry", "kernel": os.uname().release}


@pytest.mark.parametrize("error", [MkwriteError("It is gone.", "Start it."), OSError(9, "bad"), KeyError("x")])
def test_a_snapshot_that_fails_is_shown_as_down_and_the_next_as_up(error: Exception) -> None:
    source = collector(shot(), error, shot())
    assert value(scrape(source), "mkwrite_up") == 1
    down = scrape(source)
    assert set(down) == {"mkwrite_up", "mkwrite_build_info", "mkwrite_scrape_duration_seconds"}
    assert value(down, "mkwrite_up") == 0
    assert value(down, "mkwrite_build_info", backend="fentry") == 1
    assert value(scrape(source), "mkwrite_up") == 1


def test_registering_takes_no_snapshot() -> None:
    CollectorRegistry().register(collector(AssertionError("taken")))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.integers(0, 1 << 37), max_size=5), min_size=2, max_size=5))
def test_counters_never_go_backwards(states: list[list[int]]) -> None:
    shots = [shot({EXT4: Histogram.of(*ns)}, wp=len(ns), lost=sum(ns)) for ns in states]
    source = collector(*shots)
    before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for _ in shots:
        for name, found in scrape(source).items():
            if name.endswith(("_total", "_bucket", "_count", "_sum")):
                for labels, now in found:
                    key = (name, frozenset(labels.items()))
                    assert now >= before.get(key, 0)
                    before[key] = now


def test_scrapes_at_the_same_time_wait_for_each_other() -> None:
    class Checking(Source):
        busy = threading.Lock()

        def snapshot(self) -> Snapshot:
            assert self.busy.acquire(blocking=False), "two at a time"
            threading.Event().wait(0.005)
            self.busy.release()
            return super().snapshot()

    source = MkwriteCollector(Checking(shot()), "1")
    results: list[float] = []
    threads = [threading.Thread(target=lambda: results.append(value(scrape(source), "mkwrite_up"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [1] * 8


def test_waits_are_summed_by_reason_and_start_at_0_where_there_are_calls() -> None:
    first = WaitSeries("ext4", "/srv", 8 << 20, "ext4_page_mkwrite", Wait.JOURNAL)
    second = replace(first, handler="other_page_mkwrite")
    source = collector(
        replace(
            shot({replace(EXT4, mountpoint="/m0"): Histogram.of(1)}),
            waits={first: WaitTime(1, 2_000_000_000, 2_000_000_000)},
            oldest_in_flight_ns=1_500_000_000,
        ),
        replace(shot(), waits={first: WaitTime(2, 2_500_000_000, 2_000_000_000), second: WaitTime(1, 500_000_000, 1)}),
        replace(shot(), waits={replace(first, mountpoint=""): WaitTime(3, 2_600_000_000, 1)}),
    )
    samples = scrape(source)
    assert value(samples, "mkwrite_wait_seconds_total", mountpoint="/srv", reason="journal") == 2.0
    assert value(samples, "mkwrite_oldest_inflight_seconds") == 1.5
    zeros = [labels["reason"] for labels, n in samples["mkwrite_wait_seconds_total"] if labels["mountpoint"] == "/m0"]
    assert zeros == sorted(Wait)
    assert {labels["mountpoint"] for labels, _ in samples["mkwrite_wait_seconds_total"]} == {"/srv", "/m0"}
    assert value(scrape(source), "mkwrite_wait_seconds_total", mountpoint="/srv", reason="journal") == 3.0
    # Unmounted: what was counted stays where it was, and what is new has no mount point.
    last = scrape(source)
    assert value(last, "mkwrite_wait_seconds_total", mountpoint="/srv", reason="journal") == 3.0
    assert value(last, "mkwrite_wait_seconds_total", mountpoint="", reason="journal") == pytest.approx(0.1)


def test_what_ends_writable_is_a_page_that_is_dirty() -> None:
    again = replace(EXT4, path=FaultPath.WRITE_PROTECT, initiator=Initiator.KERNEL)
    refused = {replace(EXT4, outcome=outcome): Histogram.of(*[1] * 11) for outcome in Outcome if outcome != "writable"}
    refused |= {replace(EXT4, path=path): Histogram.of(*[1] * 13) for path in FaultPath if path.dax}
    busy = {EXT4: Histogram.of(*[1] * 7), again: Histogram.of(*[1] * 3)} | refused
    source = collector(
        shot({EXT4: Histogram.of(1, 1)} | refused),
        replace(shot(busy), gone={EXT4: Histogram.of(*[1] * 7)}),
        shot({again: Histogram.of(*[1] * 3), EXT4: Histogram.of(1)}),
    )
    assert not scrape(collector(shot())).get("mkwrite_dirtied_bytes_total")
    for pages in (2, 10, 11):  # what the kernel's map forgot stays counted
        samples = scrape(source)
        assert value(samples, "mkwrite_dirtied_bytes_total", mountpoint="/srv") == pages * mmap.PAGESIZE


def test_only_filesystems_that_are_traced_begin_with_zeros() -> None:
    table = Mounts.parse(b"1 1 8:1 / /a rw - ext4 /dev/sda rw\n2 1 8:2 / /b rw - xfs /dev/sdb rw\n")
    for filters, expected in (
        (Filters(), {"/a", "/b"}),
        (Filters(fs=("xfs",)), {"/b"}),
        (Filters(mounts=("/a/",)), {"/a"}),
        (Filters(fs=("xfs",), mounts=("/a",)), set()),
    ):
        source = MkwriteCollector(Source(shot()), "1", mounts=lambda: table, filters=filters)
        found = scrape(source).get("mkwrite_failures_total", [])
        assert {labels["mountpoint"] for labels, _ in found} == expected
    many = MkwriteCollector(Source(shot()), "1", 1, mounts=lambda: table)
    assert {labels["mountpoint"] for labels, _ in scrape(many)["mkwrite_failures_total"]} == {"/a"}
