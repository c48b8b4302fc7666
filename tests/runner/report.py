"""Tells how a run goes: whole lines into a file or a log, bars on a terminal; and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.runner.results import Result, times


class Report:
    """Progress of parts. All that they print is in ``log``; a terminal shows bars, and only what failed."""

    def __init__(self, console: Console, log: Path, parts: Sequence[str]) -> None:
        self._console = console
        self._path = log
        self._bars: dict[str, TaskID] = {}
        share = TextColumn("{task.percentage:>3.0f} %")
        left = (TextColumn("left:"), TimeRemainingColumn())
        columns = (TextColumn("{task.description}"), BarColumn(), share, TimeElapsedColumn(), *left)
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        for name in parts:
            self._bars[name] = self._progress.add_task(name, start=False, total=100)

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._log = self._path.open("w")
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        self._log.close()

    def begin(self, part: str) -> None:
        """A part has started."""
        self._progress.start_task(self._bars[part])

    def progress(self, part: str, percent: int) -> None:
        """So much of a part's tests is done."""
        self._progress.update(self._bars[part], completed=percent)

    def line(self, part: str, text: str) -> None:
        """One line that a part printed."""
        whole = f"[{time.strftime('%H:%M:%S')} {part}] {text}"
        print(whole, file=self._log, flush=True)
        if not self._console.is_terminal:
            print(whole, flush=True)
        elif text.startswith("FAILED") or " FAILED " in text or " ERROR " in text:
            self._console.print(whole, markup=False, highlight=False)

    def end(self, result: Result) -> None:
        """A part is over."""
        self.progress(result.part, 100)
        self._progress.stop_task(self._bars[result.part])
        self.line(result.part, f"{result.passed} passed, {len(result.failures)} failed in {result.seconds:.0f} s")

    def summary(self, results: Sequence[Result]) -> int:
        """Print where the time went, what failed, and the sums; returns how many failed."""
        failures = [line for result in results for line in result.failures]
        for result in results:
            for line in result.last:
                self._console.print(f"{result.part}: {line}", markup=False, highlight=False, soft_wrap=True)
        for line in (*times(results), *(f"FAILED {line}" for line in failures)):
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        passed = sum(result.passed for result in results)
        self._console.print(f"{passed} passed, {len(failures)} failed", markup=False, highlight=False)
        return len(failures)
