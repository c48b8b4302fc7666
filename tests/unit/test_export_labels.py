"""Labels that are valid whatever a mount is called, and series within their bound."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from scraped import EXT4, collector, scrape, shot, value

from tracer.export.http.answers import exposition
from tracer.model.calls import Outcome, Series
from tracer.model.histogram import Histogram


def test_labels_are_valid_and_harmless_whatever_a_mount_is_called() -> None:
    nasty = replace(EXT4, mountpoint='/a"b\\c\nd\x1b[31m\udcff‮')
    text = exposition(collector(shot({nasty: Histogram.of(1)}))).decode()
    assert "\x1b" not in text and "‮" not in text
    samples = scrape(collector(shot({nasty: Histogram.of(1)})))
    ((labels, _),) = samples["mkwrite_calls_total"]
    assert labels["mountpoint"] == '/a"b\\c\\x0ad\\x1b[31m\\xff\\u202e'


def test_mount_points_that_look_alike_once_escaped_share_a_series() -> None:
    calls = {replace(EXT4, mountpoint=m): Histogram.of(1) for m in ("/\n", "/\\x0a")}
    samples = scrape(collector(shot(calls)))
    assert value(samples, "mkwrite_calls_total", mountpoint="/\\x0a") == 2


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_any_label_survives_the_exposition_format(name: str) -> None:
    samples = scrape(collector(shot({replace(EXT4, fstype=name, handler=name): Histogram.of(1)})))
    assert value(samples, "mkwrite_calls_total") == 1


def many(number: int) -> dict[Series, Histogram]:
    """So many mounts, the i-th with i + 1 calls."""
    return {replace(EXT4, dev=i, mountpoint=f"/m{i}"): Histogram.of(*[1] * (i + 1)) for i in range(number)}


def test_series_beyond_the_bound_are_counted_together() -> None:
    refused = replace(EXT4, dev=500, mountpoint="/full", outcome=Outcome.SIGBUS)
    samples = scrape(collector(shot({**many(20), refused: Histogram.of(1)}), max_series=5))
    assert value(samples, "mkwrite_series_dropped") == 16
    own = {labels["mountpoint"] for labels, _ in samples["mkwrite_calls_total"]} - {"other"}
    assert own == {"/m19", "/m18", "/m17", "/m16", "/m15"}
    folded = {"fstype": "other", "mountpoint": "other", "device": "other", "handler": "other"}
    assert value(samples, "mkwrite_calls_total", **folded, outcome="writable") == sum(range(1, 16))
    assert value(samples, "mkwrite_calls_total", **folded, outcome="sigbus") == 1
    assert value(samples, "mkwrite_call_latency_seconds_count", mountpoint="other") == 121
    assert sum(n for _, n in samples["mkwrite_calls_total"]) == 211


def test_a_series_keeps_its_place() -> None:
    late = {**many(2), replace(EXT4, mountpoint="/busy"): Histogram.of(*[1] * 99)}
    source = collector(shot(many(2)), shot(late), max_series=2)
    scrape(source)
    places = {labels["mountpoint"] for labels, _ in scrape(source)["mkwrite_calls_total"]}
    assert places == {"/m0", "/m1", "other"}


def test_within_the_bound_nothing_is_dropped() -> None:
    samples = scrape(collector(shot(many(5)), max_series=5))
    assert value(samples, "mkwrite_series_dropped") == 0
    assert len(samples["mkwrite_calls_total"]) == 5
