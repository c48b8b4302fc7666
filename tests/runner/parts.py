"""The parts of a test run: what each runs, where, and which of the tests."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
#: Tests on a kernel: this machine's own, or a guest's.
LIVE: Final = ("tests/live", "tests/filesystems")
#: By the marks of pyproject.toml: what each change is tested for on 6.12, on the newest kernel, and on the others.
_CHANGE: Final = "not nightly and not matrix and not native"
_NEWEST: Final = f"(newest or every) and {_CHANGE}"
_EVERY: Final = f"every and {_CHANGE}"
#: In seconds here, in minutes in a guest.
_NATIVE: Final = "native and (not nightly or here) and not matrix"
#: Everything but what the matrix of filesystems has besides.
_ALL: Final = "not matrix"


@dataclass(frozen=True, slots=True)
class Part:
    """What one process runs.

    ``series`` is the kernel of its guest; a part without one runs on this machine, and may boot a guest itself
    (``boots``). ``tests`` are pytest's arguments, ``command`` is what it runs instead. ``private``: in a mount
    namespace of its own. ``cpus`` are the guest's, which has what every filesystem needs if it is of the ``matrix``.
    A test may take ``test_s``, the part ``limit_s``: what hangs ends, and is told.
    """

    name: str
    tests: Sequence[str] = ()
    marks: str = ""
    series: str = ""
    command: Sequence[str] = ()
    boots: bool = False
    private: bool = False
    cpus: int = 2
    matrix: bool = False
    test_s: float = 300.0
    limit_s: float = 2400.0

    @property
    def emulates(self) -> bool:
        """Whether it has a guest, its own or one that it boots."""
        return bool(self.series) or self.boots

    def arguments(self, report: str, only: str) -> list[str]:
        """The command line, which leaves a junit file ``report`` if it is pytest's; ``only`` is pytest's -k."""
        if self.command:
            return list(self.command)
        pytest = [
            *(sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"),
            # What it imports takes as long as all else that pytest does before the first test.
            *(("-p", "no:hypothesispytest") if self.series else ()),
            *("-p", "tests.runner.timing", f"--timeout={self.test_s:g}", f"--junitxml={report}", *self.tests),
            *(("-m", self.marks) if self.marks else ()),
            *(("-k", only) if only else ()),
        ]
        if self.private:  # what it mounts goes with it
            return ["unshare", "--mount", "--propagation", "private", *pytest]
        return pytest


def _live(series: str, marks: str, cpus: int = 2) -> Part:
    return Part(series, LIVE, marks, series=series, cpus=cpus)


def _halves(series: str, marks: str) -> tuple[Part, Part]:
    """Every second file each, in guests of their own: neither is as long as all other parts together."""
    files = sorted(str(path.relative_to(ROOT)) for place in LIVE for path in (ROOT / place).glob("test_*.py"))
    first, second = (
        Part(f"{series}-{half}", files[start::2], marks, series=series) for half, start in (("a", 0), ("b", 1))
    )
    return first, second


def _night(part: Part) -> Part:
    return replace(part, test_s=3600.0, limit_s=6 * 3600.0)


LINT: Final = Part("lint", command=["make", "-s", "lint"])
UNIT: Final = Part("unit", ("tests/unit", "tests/observability"))
NATIVE: Final = Part("native", LIVE, _NATIVE, private=True)
DEMO: Final = Part("demo", ("tests/demo",), boots=True)
INSTALL: Final = Part("install", ("tests/install",))
#: Each change: the longest first, so that the end is not one part alone.
CHANGE: Final = (
    *_halves("6.12", _CHANGE),
    _live("newest", _NEWEST),
    _live("6.1", _EVERY, cpus=1),
    _live("5.10", _EVERY, cpus=1),
    DEMO,
    UNIT,
    NATIVE,
    INSTALL,
    LINT,
)


def _target(name: str) -> Part:
    return _night(Part(name, command=["make", "-s", name], boots=True))


#: Everything: each kernel with all tests, Debian's flavours, and what has a target of its own.
ALL: Final = (
    *(_night(_live(series, _ALL)) for series in ("6.12", "newest", "6.18", "6.1", "5.10")),
    *(_live(series, _EVERY) for series in ("6.12-cloud", "6.12-rt")),
    _night(Part("native", LIVE, f"native and {_ALL}", private=True)),
    *map(_target, ("test-filesystems", "test-releases", "test-deployment", "test-examples", "fuzz")),
    *(UNIT, LINT, DEMO, INSTALL),
)


#: Before the series in the name of a part that has every filesystem.
MATRIX: Final = "matrix-"


def named(name: str) -> Part:
    """The part of that name; else that of a series: every filesystem, or all tests of a change."""
    if name.startswith(MATRIX):
        series = name.removeprefix(MATRIX)
        return _night(Part(name, ("tests/filesystems",), series=series, matrix=True))
    others = (part for part in ALL if not part.series)
    return next((part for part in (*CHANGE, *others) if part.name == name), _live(name, _CHANGE))
