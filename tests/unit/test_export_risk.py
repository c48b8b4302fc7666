"""The metrics of `risk`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from prometheus_client.registry import CollectorRegistry
from test_risk import SRV, TREE, demand, limit

from tracer.export.http.answers import exposition
from tracer.export.prometheus.risk_collector import RiskCollector
from tracer.mappings.cut import Cut
from tracer.mappings.risk import Demand, LimitKind, assess
from tracer.mappings.survey import Survey

LABELS = {"fstype": "ext4", "mountpoint": "/srv", "device": "8:1"}


def looks(*several: tuple[int, list[Demand]]) -> Iterator[Survey]:
    for seconds, demands in several:
        yield Survey(seconds * 10**9, tuple(demands), assess(demands), ())


def registry(surveys: Iterator[Survey], every_s: float = 0.0) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(RiskCollector(lambda: next(surveys), every_s))
    return made


def test_a_filesystem_is_told_by_the_limit_that_is_nearest_to_refusing() -> None:
    quota = limit(50, LimitKind.USER, who="26")
    first = [demand(100, limit(1000), quota), demand(7, limit(9, place=TREE))]
    second = [demand(90, limit(990), replace(quota, free=40)), demand(7, limit(9, place=TREE))]
    found = registry(looks((0, first), (2, second)))
    assert found.get_sample_value("mkwrite_risk_unallocated_bytes", LABELS) == 100
    assert found.get_sample_value("mkwrite_risk_available_bytes", LABELS) == 40  # each question is a scrape


def test_the_time_to_refusal_comes_with_the_second_look() -> None:
    found = registry(looks((0, [demand(100, limit(50))]), (2, [demand(90, limit(40))])))
    assert found.get_sample_value("mkwrite_risk_time_to_refusal_seconds", LABELS) == math.inf
    assert found.get_sample_value("mkwrite_risk_time_to_refusal_seconds", LABELS) == 8.0


def test_scrapes_in_between_take_no_look() -> None:
    surveys = looks((1 << 40, [demand(100, limit(50))]))
    found = registry(surveys, every_s=3600)
    for _ in range(3):
        assert found.get_sample_value("mkwrite_risk_unallocated_bytes", LABELS) == 100


def test_a_look_that_fails_takes_its_metrics_with_it_and_no_others() -> None:
    def fails() -> Survey:
        raise OSError("no /proc\x1b")

    text = exposition(RiskCollector(fails)).decode()
    assert "# TYPE mkwrite_risk_unallocated_bytes gauge" in text
    assert not [line for line in text.splitlines() if not line.startswith("#")]


def test_a_real_look_has_metrics_that_parse() -> None:
    assert "mkwrite_risk_look_duration_seconds" in exposition(RiskCollector()).decode()


def test_labels_are_bounded_by_filesystem() -> None:
    many = [demand(5, limit(9), limit(9, LimitKind.USER, who=str(uid)), inode=uid) for uid in range(50)]
    text = exposition(RiskCollector(lambda: next(looks((0, many))))).decode()
    assert text.count("mkwrite_risk_unallocated_bytes{") == 1
    assert SRV.mountpoint in text


def test_what_is_mapped_beyond_its_end_is_added_up_by_filesystem() -> None:
    cuts = tuple(Cut("/srv/f", False, inode, 0, 4096 * inode, (), SRV) for inode in (2, 3))
    before = Survey(0, (demand(1, limit(5)),), assess([demand(1, limit(5))]), ())
    found = registry(iter((before, replace(before, monotonic_ns=10**9, cut=cuts))))
    assert found.get_sample_value("mkwrite_risk_beyond_end_bytes", LABELS) == 0
    assert found.get_sample_value("mkwrite_risk_beyond_end_bytes", LABELS) == 5 * 4096
