"""The names of metrics: by the conventions, and documented."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable
from dataclasses import replace

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.registry import CollectorRegistry
from scraped import EXT4, collector, shot

from tracer.model.calls import Initiator
from tracer.model.histogram import Histogram
from tracer.model.snapshot import Throttled, Tracepoints


def families() -> Iterable[Metric]:
    """Every family, with samples."""
    seen = Tracepoints(1, dict.fromkeys((Initiator.USER, Initiator.KERNEL), 2), {"7:0": Throttled(3, 4, 5)})
    runs = {"page_mkwrite_entry": (7, 4200)}
    counted = replace(shot({EXT4: Histogram.of(1)}), runs=runs)
    with_calls = collector(counted).collect()
    # Without calls there are no waits, and the other way round.
    without = {family.name: family for family in collector(replace(counted, tracepoints=seen)).collect()}
    return [family if family.samples else without[family.name] for family in with_calls]


def test_names_follow_the_conventions() -> None:
    for family in families():
        assert re.fullmatch(r"mkwrite(_[a-z]+)+", family.name)
        assert family.documentation.endswith(".") and "\n" not in family.documentation
        assert family.samples, family.name
        for sample in family.samples:
            assert all(re.fullmatch(r"[a-z]+", label) for label in sample.labels)
            assert not {"job", "instance", "pid", "comm", "file", "who"} & set(sample.labels)
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
        else:
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        if re.search(r"duration|latency|time", family.name):
            assert family.name.endswith("_seconds")
        assert not re.search(r"(milli|micro|nano)seconds|minutes|_ns$|_us$|_ms$", family.name)
        assert family.type not in family.name.split("_")


def test_the_metrics_are_valid_openmetrics_too() -> None:
    registry = CollectorRegistry()
    registry.register(collector(shot({EXT4: Histogram.of(1)})))
    text = openmetrics_latest(registry).decode()  # type: ignore[no-untyped-call]
    parsed = list(parse_openmetrics(text))  # type: ignore[no-untyped-call]
    assert {family.name for family in parsed} == {family.name for family in families()}


def test_every_metric_is_documented() -> None:
    text = (pathlib.Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for family in families():
        name = {"counter": f"{family.name}_total", "info": f"{family.name}_info"}.get(family.type, family.name)
        assert f"## {name}\n" in text, name
        for label in family.samples[0].labels:
            assert label == "le" or f"`{label}`" in text
