#!/usr/bin/env python3
"""Make docs/support.md from what test runs printed: tests/support.py docs/support.md LOG ... >NEW.

A log is the output of tests/run, tests/live/measure.py or tests/releases/run. What stands in the page is what ran:
a row of the page given stays until a log has a newer one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

HEAD = """\
# What it runs on, and what it survives

Made by `tests/support.py` from the output of `tests/run`, `tests/live/measure.py` and `tests/releases/run`: each
number below was printed by a run. Kernels are Debian's own builds, booted in QEMU. Made on {date} at commit {commit};
rows of a kernel or fault that no run since had are older.
"""
KERNELS = """
## Kernels and backends

Live tests that passed and failed, by the backend that they name, or that their file is about. *Tests*: how many ran:
`make test-all` runs all of them on each kernel, of clouds and real time those marked `every`, natively those marked
`native`.
"""
RELEASES = """
## Releases of Debian: BCC, Python

The wheel installed into the release's own root file system, with its Python, BCC, LLVM and libbpf: compiled, attached
and counted in a guest. *Counted* is made / counted / lost.
"""
FAULTS = """
## Faults survived

What was made (by the workload's or the kernel's own count), what was counted, and what was lost and said to be lost.
Where no events are counted, the rows count the times that it was survived. A row whose counted and lost are not what
was made is of a test that failed.
"""

#: Written by hand, and kept.
TAIL = "## What these runs do not show"
_STREAMED = re.compile(r"^\[[0-9:]{8} (\S+)\] ?(.*)$")
_STARTED = re.compile(r"^(?:booting|running on) (\S+)$")
#: What a test prints comes between its name and its outcome.
_TEST = re.compile(r"^(tests/\S+\.py::.+?)(?: ([A-Z]+) +\[ *\d+%\])?$")
_OUTCOME = re.compile(r"^([A-Z]+) +\[ *\d+%\]$")
#: conftest.py's heading of what it tells of a failure at once.
_TOLD = re.compile(r" (?:setup|call|teardown) [a-z]+$")
_BACKENDS = ("fentry", "kprobe", "tracepoint")
_BACKEND = re.compile(r"\[(?:.*-)?(fentry|kprobe|tracepoint)(?:-.*)?\]")
#: Tests that use the tracepoint backend alone, and so have no need to name it.
_ALL_TRACEPOINT = re.compile(r"^tests/live/test_(tracepoints|abuse|rights)\.py::")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


Row = tuple[str, ...]


class Results:
    """What the logs tell, and an earlier page of what they do not."""

    def __init__(self) -> None:
        self.tests: dict[str, dict[str, str]] = defaultdict(dict)
        self.faults: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.releases: dict[str, dict[str, Any]] = {}
        self.earlier: dict[str, list[Row]] = defaultdict(list)
        self.tail = ""

    def read(self, text: str) -> None:
        """Take in one log. Of a test that ran twice on a kernel the later outcome counts."""
        booted: dict[str, str] = {}
        begun: dict[str, list[str]] = defaultdict(list)
        for line in text.splitlines():
            if line.startswith('{"suite"'):
                record = json.loads(line)
                self.releases[record["suite"]] = record
                continue
            series, said = match.groups() if (match := _STREAMED.match(line)) else ("", line)
            if said.startswith("SURVIVED "):
                row = json.loads(said.removeprefix("SURVIVED "))
                kernel = _known(row["kernel"])
                self.faults[row["fault"], kernel, row["backend"]] = {**row, "kernel": kernel}
            elif said.startswith("FAILED: "):
                self.tests[f"{series} ({booted.get(series, '?')}: {said.removeprefix('FAILED: ')})"]["boot"] = "ERROR"
            elif match := _STARTED.match(said):
                booted[series] = _known(match[1])
            elif series not in booted or _TOLD.search(said):
                continue
            elif (match := _TEST.match(said)) and match[2]:
                self.tests[booted[series]][match[1]] = match[2]
            elif match:
                begun[series].append(match[1])
            elif (match := _OUTCOME.match(said)) and begun[series]:
                self.tests[booted[series]][begun[series].pop(0)] = match[1]

    def read_page(self, text: str) -> None:
        """Take in an earlier page: rows that no log replaces stay, and so does what stands behind the tables."""
        body, _, tail = text.partition(TAIL)
        self.tail = f"{TAIL}{tail}" if tail else ""
        for section in body.split("\n## ")[1:]:
            rows = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in section.split("\n")
                    if line.startswith("| ")]  # fmt: skip
            self.earlier[section.partition("\n")[0]] = rows[1:]

    def _kept(self, title: str, key: int, new: Iterable[Row]) -> list[Row]:
        """Rows of an earlier page whose first ``key`` cells no new row has, and the new ones."""
        return list({row[:key]: row for row in (*self.earlier[title], *new)}.values())

    def page(self) -> Iterator[str]:
        """The lines of the page."""
        commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        yield HEAD.format(date=time.strftime("%Y-%m-%d"), commit=commit.stdout.strip()) + KERNELS
        before = {row[0]: row for row in self.earlier["Kernels and backends"]}
        new = [row for row in map(_cells, self._kernels()) if row[0] not in before or _as_much(row, before[row[0]])]
        kernels = _newest(self._kept("Kernels and backends", 1, new), 0, _as_much)
        yield from table(["kernel", "flavour", *_BACKENDS, "either or both", "failed", "tests"],
                         sorted(kernels, key=lambda row: (_numbers(row[0]), row[1])))  # fmt: skip
        yield RELEASES
        yield from table(["release", "BCC", "Python", "kernel", "backend chosen", "counted, fentry", "counted, kprobe",
                          "sigbus", "top", "export"],
                         self._kept("Releases of Debian: BCC, Python", 1, map(_cells, self._releases())))  # fmt: skip
        yield FAULTS
        faults = _newest(self._kept("Faults survived", 3, map(_cells, self._faults())), 1,
                         lambda new, old: (new[0], new[2]) == (old[0], old[2]))  # fmt: skip
        yield from table(["fault", "kernel", "backend", "made", "counted", "lost, and said so"],
                         sorted(faults, key=lambda row: (row[0], _numbers(row[1]), row[2])))  # fmt: skip
        if self.tail:
            yield f"\n{self.tail.rstrip()}"

    def _kernels(self) -> Iterator[Sequence[object]]:
        for release, outcomes in self.tests.items():
            counts: Counter[tuple[str, str]] = Counter()
            for test, outcome in outcomes.items():
                backend = _BACKEND.search(test)
                named = backend[1] if backend else "tracepoint" if _ALL_TRACEPOINT.match(test) else "any"
                counts[named, outcome] += 1
            flavour = next((name for name in ("cloud", "rt") if f"-{name}-" in release), "default")
            passed = [counts[name, "PASSED"] for name in (*_BACKENDS, "any")]
            failed = sum(number for (_, outcome), number in counts.items() if outcome != "PASSED")
            yield release, flavour, *passed, failed, sum(passed) + failed

    def _releases(self) -> Iterator[Sequence[object]]:
        for record in self.releases.values():
            steps = record.get("steps", {})
            counts = [steps.get(f"count {name}", {}) for name in ("fentry", "kprobe")]
            yield (
                record["suite"],
                record.get("bcc", "?"),
                record.get("python", "?"),
                record["kernel"],
                steps.get("doctor", {}).get("backend", "?"),
                *(f"{count.get('made')} / {count.get('counted')} / {count.get('lost')}" for count in counts),
                steps.get("sigbus", {}).get("errno", "failed"),
                *("yes" if steps.get(name, {}).get("ok") else "failed" for name in ("top", "export")),
            )

    def _faults(self) -> Iterator[Sequence[object]]:
        for (fault, kernel, backend), row in self.faults.items():
            yield fault, kernel, backend, row["made"], row["counted"], row["lost"]


def _cells(row: Sequence[object]) -> Row:
    return tuple(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row)


def _known(release: str) -> str:
    """A release that others can have; that of the machine where the native tests ran is nobody else's."""
    if release.endswith("-amd64"):
        return release
    return f"{'.'.join(release.split('.')[:2])} without kprobes, native"


def _as_much(new: Row, old: Row) -> bool:
    """Whether as many tests ran as to replace others: a few by name do not replace a suite."""
    ran, before = (int(row[-1].replace(",", "")) for row in (new, old))
    return ran * 2 >= before


def _newest(rows: Sequence[Row], column: int, replaces: Callable[[Row, Row], bool]) -> Iterator[Row]:
    """The rows but those of a kernel, in that column, which one of a newer kernel of its series replaces."""
    for row in rows:
        if not any(
            _series(other[column]) == _series(row[column])
            and _numbers(other[column]) > _numbers(row[column])
            and replaces(other, row)
            for other in rows
        ):
            yield row


def _series(release: str) -> str:
    """A release without what tells it from the others of its series and flavour."""
    return re.sub(r"^(\d+\.\d+)\.\d+(\+\w+)?(-\d+)?", r"\1", release)


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def main() -> int:
    """Read the logs named, and pages (*.md) made earlier; print the page."""
    results = Results()
    for name in sys.argv[1:]:
        text = Path(name).read_text(errors="replace")
        (results.read_page if name.endswith(".md") else results.read)(text)
    print("\n".join(results.page()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
