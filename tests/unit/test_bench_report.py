"""The benchmark's tables, made of what it leaves as JSON."""

from __future__ import annotations

import json
from typing import Any

from bench.report import as_markdown


def cost(median: float, spread: float = 0) -> dict[str, float]:
    return {"median": median, "spread": spread, "p90": median}


START = {"cpu_s": 0.344, "wall_s": 0.412, "peak_mb": 46.2}
GUEST: dict[str, Any] = {
    "kernel": "6.12.1",
    "tools": {"bcc": "0.26", "perf": "6.1"},
    "faults": {"nothing": {"COW": cost(7156)}, "mkwrite fentry": {"COW": cost(7422, 36)}},
    "start": {"pass": START, "serving": START | {"steady_mb": 53.4}},
    # Numbers that JSON makes text of.
    "keys": {"nothing": {1: 4000.0, 10_000: 4100.0}, "mkwrite fentry": {1: 4854.0, 10_000: 4924.0}},
    "threads": {"mkwrite fentry": {1: [1.12, 1.13, 1.11], 2: [1.09, 1.0, 1.14]}},
    "rates": [{"what": "calls", "backend": "fentry", "a_second": 1e5, "made": 3000, "counted": 3000, "lost": 0}],
}
HERE: dict[str, Any] = {
    "here": {
        "processor": "a processor",
        "python": "3.11.2",
        "kernel": "6.18.44",
        "start": {"once": START, "serving": START | {"steady_mb": 38.6, "rest_percent": 0.214}},
        "synthetic": [
            {"threads": 2, "made": 900, "counted": 899, "lost": 1, "exact": False, "seconds": 3, "cpu_s": 2}
            | {"scrapes": 7}
        ],
    }
}


def markdown(*documents: dict[str, Any]) -> str:
    return as_markdown(json.loads(json.dumps(documents)))


def test_what_was_measured_is_shown_from_its_json() -> None:
    lines = markdown(GUEST, HERE).splitlines()
    for line in (
        "Tools: bcc 0.26, perf 6.1",
        "### Instructions added to a fault, 6.12.1",
        "| untraced fault | 7,156 |",
        "| mkwrite fentry | +266 |",
        "mkwrite fentry: 36 (COW)",
        "| serving | 0.34 | 46 | 53 |",
        "| mkwrite fentry | +854 | +824 |",
        "| mkwrite fentry | 1.12 (1.11-1.13) | 1.09 (1.00-1.14) |",
        "| calls | fentry | 100,000 | 3,000 | 3,000 |  |  | 0 |",
        "| once | 0.34 | 0.41 | 46 |  |  |",
        "| serving | 0.34 | 0.41 | 46 | 39 | 0.21 |",
        "| 2 | 900 | 899, but not by device and outcome | 1 | 300 | 450 | 7 |",
    ):
        assert line in lines


def test_tools_are_named_once() -> None:
    assert markdown(GUEST, GUEST | {"kernel": "7.3.4"}).count("Tools:") == 1
