"""The view of histograms: every call in one bar, in adjoining ranges."""

from __future__ import annotations

import io
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from samples import series, snapshot
from shown import render

from tracer.model.calls import Outcome
from tracer.model.histogram import BUCKETS, LOWER_NS, Histogram, bucket_of
from tracer.ui.hist import FINE, HistogramsView, bars


def test_a_histogram_tells_its_key_statistics_and_buckets() -> None:
    counts = snapshot(
        {
            series(): Histogram.of(*[4200] * 30, *[9000] * 15),
            series(outcome=Outcome.SIGBUS): Histogram.of(4200),
        }
    )
    lines = render(HistogramsView(counts), 80)
    assert lines[0] == "/srv ext4 8:1 ext4_page_mkwrite first_write"
    assert lines[1].startswith("count 46  mean 5.8us  p50 4.") and lines[1].endswith("max 9.0us")
    rows = [line.split() for line in lines[2:-1]]
    assert [row[3] for row in rows] == ["31", "0", "0", "0", "15"]
    assert rows[0][0] == "4.1us"
    assert lines[2].endswith("  " + "█" * 59)
    assert len(rows[1]) == 4
    assert 0.45 < len(rows[4][4]) / len(rows[0][4]) < 0.55


def test_a_histogram_for_each_outcome_only_when_asked() -> None:
    counts = snapshot({series(): Histogram.of(5), series(outcome=Outcome.SIGBUS): Histogram.of(5)})
    assert sum(line.startswith("count ") for line in render(HistogramsView(counts))) == 1
    assert sum(line.startswith("count ") for line in render(HistogramsView(counts, by_outcome=True))) == 2


latencies = st.lists(st.integers(min_value=0, max_value=10**12), min_size=1, max_size=30)


@given(latencies, st.booleans())
def test_bars_hold_every_call_once_in_adjoining_ranges(found: list[int], fine: bool) -> None:
    drawn = bars(Histogram.of(*found), fine=fine)
    assert sum(bar.count for bar in drawn) == len(found)
    for bar in drawn:
        top = bar.high if bar.high is not None else max(found) + 1
        assert bar.count == sum(bar.low <= ns < top for ns in found)
    assert all(bar.high == following.low for bar, following in pairwise(drawn))
    assert drawn[-1].count
    assert drawn[0].count


@given(latencies)
def test_bars_are_octaves_just_where_the_range_is_wide(found: list[int]) -> None:
    histogram = Histogram.of(*found)
    span = bucket_of(max(found)) - bucket_of(min(found)) + 1
    drawn = bars(histogram)
    if span <= FINE:
        assert drawn == bars(histogram, fine=True)
        return
    assert len(drawn) <= BUCKETS // 4 + 1
    for bar in drawn:
        if bar.low and bar.high is not None:
            assert bar.high == pytest.approx(2 * bar.low, rel=0.02)
            assert bar.low in LOWER_NS[1::4]


def test_bars_are_of_ascii_where_the_output_is() -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(width=80, file=output, force_terminal=False, _environ={})
    console.print(HistogramsView(snapshot({series(): Histogram.of(5)})))
    output.seek(0)
    assert "#" * 50 in output.read()
