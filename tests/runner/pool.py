"""Runs parts side by side, each on a leash, and collects what came of them."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.runner.guest import environment, sources
from tests.runner.parts import LIVE, ROOT, Part
from tests.runner.report import Report
from tests.runner.results import Case, Result, read
from tests.vm.leash import Leashed

#: What is told of a part that left no results.
_LAST_LINES: Final = 60
#: What pytest prints of its progress.
_PERCENT: Final = re.compile(rb"\[ *(\d+)%\]$")


class Running:
    """One part that runs: reads its output, and knows what came of it in the end."""

    def __init__(self, part: Part, share: Path, only: str, report: Report, build: Path) -> None:
        """Start it; raises OSError."""
        self.part = part
        self._build = build
        self._where = share / part.name
        self._where.mkdir()
        self._report = report
        self._rest = bytearray()
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._started = time.monotonic()
        command = part.arguments(str(self._where / "junit.xml"), only)
        env = environment(self._where)
        if part.series:
            guest = (sys.executable, "-m", "tests.runner.guest", part.name, str(self._where), str(part.test_s))
            command = [*guest, "--", *command]
        else:
            (self._where / "cache").mkdir(mode=0o700)
            env["CACHE_DIRECTORY"] = str(self._where / "cache")
            if part.private:
                report.line(part.name, f"running on {os.uname().release}")
        self._leashed = Leashed(
            command,
            self._where,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **env},
        )

    @property
    def output(self) -> int:
        """The descriptor of what it prints; that ends when all are gone that have it."""
        assert self._leashed.process.stdout is not None
        return self._leashed.process.stdout.fileno()

    def kill(self) -> None:
        """End it, and with it its output."""
        self._leashed.kill()

    def close(self) -> None:
        """End it, and wait for that."""
        self._leashed.close()

    def pump(self) -> bool:
        """Pass on what it printed; false at the end of it."""
        data = os.read(self.output, 65536)
        self._rest += data
        while (end := self._rest.find(b"\n")) >= 0:
            line = bytes(self._rest[:end]).rstrip()
            del self._rest[: end + 1]
            if match := _PERCENT.search(line):
                self._report.progress(self.part.name, int(match[1]))
            if line:
                self._last.append(line.decode(errors="replace"))
                self._report.line(self.part.name, self._last[-1])
        return bool(data)

    @property
    def over(self) -> bool:
        """Whether the part itself has ended."""
        return self._leashed.process.poll() is not None

    @property
    def overdue(self) -> bool:
        """Whether it has taken longer than it may."""
        return time.monotonic() - self._started > self.part.limit_s

    def end(self) -> Result:
        """End what it left running, read what it left, and keep that."""
        seconds = time.monotonic() - self._started
        name, code = self.part.name, self._leashed.process.wait()
        self.close()
        for left in ("junit.xml", "results.json"):
            with suppress(FileNotFoundError):
                shutil.copy(self._where / left, self._build / f"{name}{Path(left).suffix}")
        if code and (rest := self._rest.decode(errors="replace").strip()):  # pytest -v has named the test, no more
            self._last.append(rest)
        if self.part.command:
            said = f"exit code {code}: {self._last[-1] if self._last else ''}" if code else ""
            return Result(name, seconds, [Case(name, " ".join(self.part.command), "", seconds, said, ())])
        return read(name, self._where / "junit.xml", code, seconds, self._last)


def run(parts: Sequence[Part], at_once: int, only: str, report: Report, build: Path) -> list[Result]:
    """Run the parts in order: guests ``at_once``, and beside them one part that has none.

    A guest leaves a third of a CPU idle, on which what needs none runs meanwhile. Whatever ends this ends them, and
    leaves nothing. ``build`` gets a junit file of each, and the results of those that make some.
    """
    build.mkdir(parents=True, exist_ok=True)
    waiting, results = list(parts), []
    with ExitStack() as stack:
        share = stack.enter_context(_shared())
        if any(part.series for part in parts):
            _compile(share)
        selector = stack.enter_context(selectors.DefaultSelector())
        while waiting or selector.get_map():
            while part := _next(waiting, [key.data.part for key in selector.get_map().values()], at_once):
                waiting.remove(part)
                running = Running(part, share, only, report, build)
                stack.callback(running.close)
                selector.register(running.output, selectors.EVENT_READ, running)
                report.begin(running.part.name)
            for running in _ready(selector):
                selector.unregister(running.output)
                results.append(running.end())
                report.end(results[-1])
    return results


def _next(waiting: Sequence[Part], running: Sequence[Part], at_once: int) -> Part | None:
    """The first part that may begin now, if any may."""
    guests = sum(part.emulates for part in running)
    room = {True: guests < at_once, False: guests == len(running)}
    return next((part for part in waiting if room[part.emulates]), None)


def _ready(selector: selectors.BaseSelector) -> Iterator[Running]:
    """Wait for output, and pass it on; the parts that have ended, and all that they printed."""
    readable = {key.data for key, _ in selector.select(1.0)}
    for running in [key.data for key in selector.get_map().values()]:
        if running.overdue:
            running.kill()
        # What a part left running may hold its output open; that is not waited for.
        if not running.pump() if running in readable else running.over:
            yield running


@contextmanager
def _shared() -> Iterator[Path]:
    """A directory with the programs that the live tests run; it goes even if this process is killed."""
    with tempfile.TemporaryDirectory(prefix="mkwrite-tests-", ignore_cleanup_errors=True) as directory:
        share = Path(directory)
        with closing(Leashed(["sleep", "infinity"], share)):
            (share / "programs").mkdir()
            for source in sources():
                program = share / "programs" / source.stem
                flags = ("-O2", "-Wall", "-Wextra", "-static", "-pthread")
                subprocess.run(["cc", *flags, "-o", program, source], check=True)
            yield share


def _compile(share: Path) -> None:
    """Compile the Python that guests run, and rewrite the tests' assertions: emulation takes twenty times as long."""
    pytest = ["-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *LIVE]
    env = {**os.environ, **environment(share / "any"), "PYTHONDONTWRITEBYTECODE": ""}
    for command in (["-m", "compileall", "-q", "tracer"], pytest):
        # What does not compile fails where it is run.
        subprocess.run([sys.executable, *command], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, check=False)
