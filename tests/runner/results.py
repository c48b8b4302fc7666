"""What the parts' junit files say: which tests passed, and where the time went."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.runner.timing import FIXTURE

SLOWEST = 20
#: What took less, as the setup of a parameter, is left out.
_LEAST_S = 0.05


@dataclass(frozen=True, slots=True)
class Case:
    """One test: how long it took with its fixtures, in seconds; ``said`` is "" for one that passed."""

    part: str
    file: str
    name: str
    seconds: float
    said: str
    fixtures: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return f"{self.part}: {self.file}::{self.name}"


@dataclass(slots=True)
class Result:
    """What came of one part; ``problem`` is what else than a test went wrong with it, ``last`` what it printed then."""

    part: str
    seconds: float = 0.0
    cases: list[Case] = field(default_factory=list)
    problem: str = ""
    last: Sequence[str] = ()

    @property
    def passed(self) -> int:
        """How many tests passed."""
        return sum(not case.said for case in self.cases)

    @property
    def failures(self) -> list[str]:
        """A line for each test that did not pass, one that was skipped included, and one for what else went wrong."""
        lines = [f"{case}: {case.said}" for case in self.cases if case.said]
        return [*lines, f"{self.part}: {self.problem}"] if self.problem else lines


def read(part: str, report: Path, returncode: int, seconds: float, last: Iterable[str] = ()) -> Result:
    """Read a part's junit file. A part without a test has failed, and so has one that ended badly without a failure.

    ``last`` is what it printed last.
    """
    result = Result(part, seconds)
    if report.exists():
        result.cases += _cases(part, report)
    if not result.cases:
        result.problem = f"left no results after {seconds:.0f} s (exit code {returncode})"
    elif returncode and not result.failures:
        result.problem = f"ended with exit code {returncode}"
    if result.problem:
        result.last = list(last)
    return result


def _cases(part: str, report: Path) -> Iterator[Case]:
    for case in ET.parse(report).getroot().iter("testcase"):
        # A test that did not run is a test that failed.
        bad = next((child for kind in ("failure", "error", "skipped") for child in case.iter(kind)), None)
        said = "" if bad is None else " ".join((bad.get("message") or bad.tag).split())[:300]
        measured = tuple(
            (name.removeprefix(FIXTURE), float(one.get("value", "0")))
            for one in case.iter("property")
            if (name := one.get("name", "")).startswith(FIXTURE)
        )
        file = case.get("classname", "").replace(".", "/") + ".py"
        yield Case(part, file, case.get("name", ""), float(case.get("time", "0")), said, measured)


def times(results: Sequence[Result]) -> Iterator[str]:
    """Lines on where the time went: by part, by file, by fixture, and the slowest tests."""
    cases = [case for result in results for case in result.cases]
    yield from _sums("by part", ((result.part, result.seconds, len(result.cases)) for result in results))
    yield from _sums("by file", ((case.file, case.seconds, 1) for case in cases))
    yield from _sums("by fixture", ((name, seconds, 1) for case in cases for name, seconds in case.fixtures))
    yield f"the {SLOWEST} slowest tests:"
    for case in sorted(cases, key=lambda case: -case.seconds)[:SLOWEST]:
        yield f"  {case.seconds:7.1f} s  {case}"


def _sums(title: str, rows: Iterable[tuple[str, float, int]]) -> Iterator[str]:
    sums: dict[str, tuple[float, int]] = {}
    for name, took, count in rows:
        seconds, number = sums.get(name, (0.0, 0))
        sums[name] = seconds + took, number + count
    yield f"{title}: seconds, how many"
    for name, (seconds, number) in sorted(sums.items(), key=lambda item: -item[1][0]):
        if seconds < _LEAST_S:
            continue
        yield f"  {seconds:7.1f} s  {number:5}  {name}"
