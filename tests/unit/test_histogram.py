"""The histogram: buckets that C and Python agree on, percentiles within their promise, arithmetic."""

from __future__ import annotations

import math
import random
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.model.histogram import BUCKETS, LOWER_NS, Histogram, bucket_of, upper_ns
from tracer.probes.abi import header
from tracer.probes.build import SOURCES

LATENCIES = st.integers(min_value=0, max_value=1 << 40)
#: Latencies of every order of magnitude that has a bucket with two bounds.
SPREAD = st.floats(6, 37.5, exclude_max=True).map(lambda exponent: math.ceil(2**exponent))

_PROGRAM = """
#include <stdio.h>
typedef unsigned int u32;
typedef unsigned long long u64;
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#include "read.h"
#include "histogram.h"
int main(void)
{
	u64 ns;

	while (scanf("%llu", &ns) == 1)
		printf("%llu\\n", (u64)bucket_of(ns));
	return 0;
}
"""


@pytest.fixture(scope="module")
def c_bucket_of(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """bpf/histogram.h, compiled for this machine."""
    directory = tmp_path_factory.mktemp("histogram")
    source = directory / "main.c"
    source.write_text(header() + _PROGRAM)
    program = directory / "main"
    subprocess.run(
        ["cc", "-std=gnu11", "-O1", "-Wall", "-Werror", f"-I{SOURCES}", "-o", str(program), str(source)], check=True
    )
    return program


def test_c_and_python_agree_at_every_boundary_and_between(c_bucket_of: Path) -> None:
    values = {0, 1, 63, 1 << 38, 1 << 60, (1 << 64) - 1}
    for bound in LOWER_NS:
        values |= {max(0, bound - 1), bound, bound + 1}
    values |= {step * 7919 for step in range(1, 20_000)} | {3**power for power in range(1, 40)}
    rng = random.Random(1)
    values |= {rng.getrandbits(rng.randint(1, 64)) for _ in range(20_000)}
    ordered = sorted(values)
    done = subprocess.run(
        [str(c_bucket_of)], input="\n".join(map(str, ordered)), capture_output=True, text=True, check=True
    )
    assert [int(line) for line in done.stdout.split()] == [bucket_of(ns) for ns in ordered]


def test_bounds_rise_by_a_quarter_octave() -> None:
    assert (LOWER_NS[0], LOWER_NS[1]) == (0, 64)
    for lower, upper in pairwise(LOWER_NS[8:]):
        assert upper / lower == pytest.approx(2**0.25, rel=0.02)
    # From 64 ns to over 100 s.
    assert LOWER_NS[BUCKETS - 1] > 100e9


@given(LATENCIES)
def test_a_latency_lies_within_its_bucket(ns: int) -> None:
    index = bucket_of(ns)
    assert LOWER_NS[index] <= ns
    assert index == BUCKETS - 1 or ns <= upper_ns(index)


@given(LATENCIES, LATENCIES)
def test_a_longer_latency_is_in_no_lower_bucket(one: int, other: int) -> None:
    shorter, longer = sorted((one, other))
    assert bucket_of(shorter) <= bucket_of(longer)


def test_every_bound_begins_its_bucket_and_no_bucket_is_empty() -> None:
    assert [bucket_of(lower) for lower in LOWER_NS] == list(range(BUCKETS))
    assert [bucket_of(upper_ns(index)) for index in range(BUCKETS)] == list(range(BUCKETS))


def true_quantile(latencies: list[int], q: float) -> int:
    """The smallest sample that a share ``q`` of the samples does not exceed."""
    return sorted(latencies)[max(0, math.ceil(q * len(latencies)) - 1)]


@given(st.lists(SPREAD, min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_9_1_percent(latencies: list[int], q: float) -> None:
    found = Histogram.of(*latencies).quantile(q)
    assert found == pytest.approx(true_quantile(latencies, q), rel=0.091)


@pytest.mark.parametrize("index", range(1, BUCKETS - 1))
def test_a_quantile_is_within_9_1_percent_at_both_ends_of_a_bucket(index: int) -> None:
    far = 10 * upper_ns(index)
    for latency in (LOWER_NS[index], upper_ns(index)):
        histogram = Histogram.of(*[latency] * 9, far)
        for q in (0.0, 0.5, 0.9):
            assert histogram.quantile(q) == pytest.approx(latency, rel=0.091)


@given(st.lists(LATENCIES, min_size=1, max_size=100), st.floats(0, 1), st.floats(0, 1))
def test_quantiles_rise_and_stay_below_the_largest(latencies: list[int], one: float, other: float) -> None:
    histogram = Histogram.of(*latencies)
    low, high = sorted((one, other))
    assert histogram.quantile(low) <= histogram.quantile(high)
    # The largest latency of 0 ns is taken as unknown.
    assert histogram.quantile(1.0) <= (max(latencies) or LOWER_NS[1])


@pytest.mark.parametrize("q", [-0.01, 1.01, math.nan])
def test_a_share_outside_0_to_1_is_no_quantile(q: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Histogram.of(100).quantile(q)


@given(st.lists(LATENCIES, max_size=50), st.lists(LATENCIES, max_size=50))
def test_a_difference_undoes_a_sum(before: list[int], after: list[int]) -> None:
    earlier, later = Histogram.of(*before), Histogram.of(*after)
    both = earlier + later
    assert both.count == len(before) + len(after)
    delta = both.since(earlier)
    assert (delta.buckets, delta.sum_ns) == (later.buckets, later.sum_ns)
    assert both.max_ns == max([*before, *after], default=0)
    assert both == Histogram.of(*before, *after) == later + earlier
    assert both.mean_ns == pytest.approx(sum(before + after) / max(1, both.count))


@given(st.lists(LATENCIES, max_size=50), st.lists(LATENCIES, min_size=1, max_size=50))
def test_the_largest_of_an_interval_is_exact_or_within_its_bucket(before: list[int], after: list[int]) -> None:
    earlier = Histogram.of(*before)
    delta = (earlier + Histogram.of(*after)).since(earlier)
    if max(after) > earlier.max_ns:
        assert delta.max_ns == max(after)
    else:
        assert max(after) <= delta.max_ns <= earlier.max_ns
        assert bucket_of(delta.max_ns) == bucket_of(max(after))


@given(st.lists(LATENCIES, max_size=50))
def test_nothing_happens_in_an_empty_interval(latencies: list[int]) -> None:
    histogram = Histogram.of(*latencies)
    assert histogram.since(histogram) == Histogram()
    assert histogram.since(Histogram()) == histogram


def test_an_empty_histogram_has_no_latency() -> None:
    assert Histogram().quantile(0.99) == Histogram().mean_ns == Histogram().count == 0
