"""The runner of the tests: nothing outlives it, and what did not pass is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from tests.runner.parts import Part
from tests.runner.pool import run
from tests.runner.report import Report
from tests.runner.results import Case, Result, read, times

ROOT = Path(__file__).resolve().parents[2]
#: Runs a part that starts a process of its own and says its number, as tests/run does.
_RUN = """
import signal, sys
from pathlib import Path
from rich.console import Console
from tests.runner import pool
from tests.runner.parts import Part
from tests.runner.report import Report
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
part = Part("sleeper", command=["sh", "-c", "sleep 1000 & echo $! $PWD; wait"])
try:
    with Report(Console(), Path(sys.argv[1], "log"), [part.name]) as report:
        pool.run([part], 1, "", report, Path(sys.argv[1], "build"))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A run that has begun, and the process that its part started."""
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _RUN, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT) as process:
        assert process.stdout is not None
        line = next((line for line in process.stdout if "] " in line and line.split()[2].isdigit()), "")
        assert line
        yield process, int(line.split()[2])
        process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_whatever_ends_the_runner_ends_its_parts_and_removes_their_files(
    runner: tuple[subprocess.Popen[str], int], number: int, code: int, tmp_path: Path
) -> None:
    process, started = runner
    assert list(tmp_path.glob("mkwrite-tests-*"))
    process.send_signal(number)
    assert process.wait(60) == code
    _eventually(lambda: not Path("/proc", str(started)).exists())
    _eventually(lambda: not list(tmp_path.glob("mkwrite-tests-*")))


def test_a_part_is_over_when_its_command_is_though_something_of_it_runs_on(tmp_path: Path) -> None:
    parts = [Part("first", command=["sh", "-c", "sleep 1000 & echo started"]), Part("second", command=["echo", "next"])]
    with Report(Console(file=(tmp_path / "shown").open("w")), tmp_path / "log", ["first", "second"]) as report:
        first, second = run(parts, 1, "", report, tmp_path / "build")
    assert (first.failures, second.failures) == ([], [])
    assert [line.split("] ")[1] for line in (tmp_path / "log").read_text().splitlines()][::2] == ["started", "next"]


def test_a_test_that_hangs_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import time\ndef test_hangs(): time.sleep(1000)\ndef test_ends(): pass")
    part = Part("it", [f"--rootdir={tmp_path}", str(tmp_path / "test_it.py")], test_s=1.0)
    assert _run_one(part, tmp_path).failures == [
        "it: test_it.py::test_hangs: Failed: Timeout (>1.0s) from pytest-timeout."
    ]


def test_a_part_that_hangs_is_killed_and_where_it_hung_is_told(tmp_path: Path) -> None:
    # It names a test before it runs it, as pytest -v does.
    part = Part("it", command=["sh", "-c", "printf 'test_hangs '; exec sleep 1000"], limit_s=1.0)
    (failure,) = _run_one(part, tmp_path).failures
    assert failure.endswith("exit code -9: test_hangs")


def _run_one(part: Part, directory: Path) -> Result:
    with Report(Console(file=(directory / "shown").open("w")), directory / "log", [part.name]) as report:
        (result,) = run([part], 1, "", report, directory / "build")
    return result


def _eventually(test: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not test():
        assert time.monotonic() < end
        time.sleep(0.01)


_JUNIT = """<testsuites><testsuite>
<testcase classname="tests.live.test_a" name="test_good" time="2.5">
 <properties><property name="fixture mounts" value="1.5"/><property name="other" value="9"/></properties></testcase>
<testcase classname="tests.live.test_a" name="test_bad" time="1.0"><failure message="assert 1 ==&#10; 2"/></testcase>
<testcase classname="tests.live.test_b" name="test_skipped" time="0.0"><skipped message="no fuse"/></testcase>
</testsuite></testsuites>"""


def test_a_test_that_was_skipped_is_one_that_failed(tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(_JUNIT)
    result = read("6.12", tmp_path / "junit.xml", 1, 9.0)
    assert result.passed == 1
    assert result.failures == [
        "6.12: tests/live/test_a.py::test_bad: assert 1 == 2",
        "6.12: tests/live/test_b.py::test_skipped: no fuse",
    ]


@pytest.mark.parametrize(
    ("junit", "code", "said"),
    [
        (None, 1, "6.12: left no results after 1 s (exit code 1)"),
        ("<testsuites/>", 0, "6.12: left no results after 1 s (exit code 0)"),
        (_JUNIT.replace("failure", "x").replace("skipped", "x"), 3, "6.12: ended with exit code 3"),
    ],
)
def test_a_part_without_tests_or_that_ended_badly_has_failed(
    tmp_path: Path, junit: str | None, code: int, said: str
) -> None:
    if junit:
        (tmp_path / "junit.xml").write_text(junit)
    result = read("6.12", tmp_path / "junit.xml", code, 1.0, ["its last line"])
    assert (result.failures, result.last) == ([said], ["its last line"])


def test_times_are_summed_by_part_file_and_fixture() -> None:
    cases = [
        Case("6.12", "tests/live/test_a.py", "test_one", 2.0, "", (("mounts", 1.5),)),
        Case("6.12", "tests/live/test_a.py", "test_two", 3.0, "", (("mounts", 0.5),)),
    ]
    assert list(times([Result("6.12", 7.0, cases)])) == [
        "by part: seconds, how many",
        "      7.0 s      2  6.12",
        "by file: seconds, how many",
        "      5.0 s      2  tests/live/test_a.py",
        "by fixture: seconds, how many",
        "      2.0 s      2  mounts",
        "the 20 slowest tests:",
        "      3.0 s  6.12: tests/live/test_a.py::test_two",
        "      2.0 s  6.12: tests/live/test_a.py::test_one",
    ]
