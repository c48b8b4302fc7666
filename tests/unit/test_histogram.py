"""The histogram: buckets that C and Python agree on, percentiles within their promise, arithmetic."""

from __future__ import annotations

import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.histogram import BUCKETS, LOWER_NS, Histogram, bucket_of, upper_ns
from tracer.probes.build import SOURCES

LATENCIES = st.integers(min_value=0, max_value=1 << 40)

_PROGRAM = """
#include <stdio.h>
typedef unsigned int u32;
typedef unsigned long long u64;
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define bounded(n, mask) ((n) &= (mask))
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
    source.write_text(_PROGRAM)
    program = directory / "main"
    subprocess.run(["cc", "-O1", f"-I{SOURCES}", "-o", str(program), str(source)], check=True)
    return program


def test_c_and_python_agree_at_every_boundary_and_between(c_bucket_of: Path) -> None:
    values = {0, 1, 63, 1 << 38, 1 << 60, (1 << 64) - 1}
    for bound in LOWER_NS:
        values |= {max(0, bound - 1), bound, bound + 1}
    values |= {step * 7919 for step in range(1, 20_000)} | {3**power for power in range(1, 40)}
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


@given(st.lists(st.integers(min_value=64, max_value=10**11), min_size=1, max_size=200), st.floats(0, 1))
def test_a_quantile_is_within_the_promise(latencies: list[int], q: float) -> None:
    ordered = sorted(latencies)
    # The sample that the rank falls on, either side of a rounding.
    near = {ordered[min(len(ordered) - 1, max(0, int(q * len(ordered)) + shift))] for shift in (-1, 0, 1)}
    found = Histogram.of(*latencies).quantile(q)
    assert min(near) / 2**0.25 * 0.999 <= found <= max(near) * 2**0.25 * 1.001


@given(st.lists(LATENCIES, max_size=50), st.lists(LATENCIES, max_size=50))
def test_a_difference_undoes_a_sum(before: list[int], after: list[int]) -> None:
    earlier, later = Histogram.of(*before), Histogram.of(*after)
    both = earlier + later
    assert both.count == len(before) + len(after)
    delta = both.since(earlier)
    assert (delta.buckets, delta.sum_ns) == (later.buckets, later.sum_ns)
    assert both.max_ns == max([*before, *after], default=0)


def test_an_empty_histogram_has_no_latency() -> None:
    assert Histogram().quantile(0.99) == Histogram().mean_ns == Histogram().count == 0
