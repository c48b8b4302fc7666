#!/usr/bin/env python3
"""Make docs/support.md from what test runs printed: tests/support.py LOG ... >docs/support.md.

A log is the output of tests/live/run, tests/live/measure.py or tests/releases/run. What stands in the page is what ran.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

HEAD = """\
# What it runs on, and what it survives

Made by `tests/support.py` from the output of `tests/live/run`, `tests/live/measure.py` and `tests/releases/run`: each
number below was printed by a run. Kernels are Debian's own builds, booted in QEMU.
"""
KERNELS = """
## Kernels and backends

Live tests that passed and failed, by the backend that they name. *Part*: the smoke suite, or other tests by name.
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

_STREAMED = re.compile(r"^\[[0-9:]{8} (\S+)\] ?(.*)$")
_TEST = re.compile(r"^(tests/live/\S+::\S+) (PASSED|FAILED|ERROR)")
_BACKEND = re.compile(r"\[(?:.*-)?(fentry|kprobe|tracepoint)(?:-.*)?\]")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for row in rows:
        yield "| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) + " |"


class Results:
    """What the logs tell."""

    def __init__(self) -> None:
        self.tests: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self.part: set[str] = set()
        self.faults: list[dict[str, Any]] = []
        self.releases: list[dict[str, Any]] = []

    def read(self, text: str) -> None:
        """Take in one log."""
        booted: dict[str, str] = {}
        found: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        for line in text.splitlines():
            if line.startswith('{"suite"'):
                self.releases.append(json.loads(line))
                continue
            series, said = match.groups() if (match := _STREAMED.match(line)) else ("", line)
            if said.startswith("SURVIVED "):
                self.faults.append(json.loads(said.removeprefix("SURVIVED ")))
            elif said.startswith("FAILED: "):
                self.tests[f"{series} ({booted.get(series, '?')}: {said.removeprefix('FAILED: ')})"][
                    "any", "ERROR"
                ] += 1
            elif said.startswith("booting "):
                booted[series] = said.removeprefix("booting ")
            elif match := _TEST.match(said):
                backend = _BACKEND.search(match[1])
                found[series][backend[1] if backend else "any", match[2]] += 1
        for series, counts in found.items():
            release = booted[series]
            self.tests[release] += counts
            if sum(counts.values()) < 100:
                self.part.add(release)
            else:
                self.part.discard(release)

    def page(self) -> Iterator[str]:
        """The lines of the page."""
        yield HEAD + KERNELS
        yield from table(
            ["kernel", "flavour", "fentry", "kprobe", "either or both", "failed", "suite"], self._kernels()
        )
        yield RELEASES
        yield from table(["release", "BCC", "Python", "kernel", "backend chosen", "counted, fentry", "counted, kprobe",
                          "sigbus", "top", "export"], self._releases())  # fmt: skip
        yield FAULTS
        yield from table(["fault", "kernel", "backend", "made", "counted", "lost, and said so"], self._faults())

    def _kernels(self) -> Iterator[Sequence[object]]:
        for release, counts in sorted(self.tests.items(), key=lambda item: _numbers(item[0])):
            flavour = next((name for name in ("cloud", "rt") if f"-{name}-" in release), "default")
            passed = [counts[name, "PASSED"] for name in ("fentry", "kprobe", "any")]
            failed = sum(number for (_, outcome), number in counts.items() if outcome != "PASSED")
            yield release, flavour, *passed, failed, "part" if release in self.part else "all"

    def _releases(self) -> Iterator[Sequence[object]]:
        for record in self.releases:
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
        seen = {(row["fault"], row["kernel"], row["backend"]): row for row in self.faults}
        for (fault, kernel, backend), row in sorted(seen.items(), key=lambda item: (item[0][0], _numbers(item[0][1]))):
            yield fault, kernel, backend, row["made"], row["counted"], row["lost"]


def _numbers(release: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", release)]


def main() -> int:
    """Read the logs named, print the page."""
    results = Results()
    for name in sys.argv[1:]:
        results.read(Path(name).read_text(errors="replace"))
    print("\n".join(results.page()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
