"""A session of made-up counts: what the command line is tried on where no kernel is to be traced.

Run as a program, it is ``mkwrite`` with such a session.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import ClassVar

from samples import HOOKS, event, series, snapshot

from tracer.errors import Exit, MkwriteError
from tracer.histogram import Histogram
from tracer.model import CallEvent, Hook, Options, Outcome, Snapshot


class FakeSession:
    """Each snapshot has 100 calls of 4 us more than the last, and one SIGBUS; each fetch brings one event."""

    opened: ClassVar[list[Options]] = []
    closed: ClassVar[int] = 0
    #: What opening raises, if anything.
    error: ClassVar[BaseException | None] = None
    #: Whether opening takes a minute.
    slow: ClassVar[bool] = False

    def __init__(self, options: Options = Options()) -> None:  # noqa: B008
        FakeSession.opened.append(options)
        self._taken = 0
        self._start = time.monotonic_ns()

    def __enter__(self) -> FakeSession:
        if FakeSession.error is not None:
            raise FakeSession.error
        if FakeSession.slow:
            _mark()
            time.sleep(60)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        FakeSession.closed += 1

    @property
    def hooks(self) -> Sequence[Hook]:
        return HOOKS

    def snapshot(self) -> Snapshot:
        self._taken += 1
        calls = {
            series(): Histogram.of(*[4000] * (100 * self._taken)),
            series(outcome=Outcome.SIGBUS): Histogram.of(*[4000] * self._taken),
        }
        return snapshot(calls, time.monotonic_ns() - self._start)

    def events(self, timeout_s: float = 0.0) -> list[CallEvent]:
        _mark()
        time.sleep(min(timeout_s, 0.01))
        return [event()]

    def finish(self) -> Snapshot:
        return self.snapshot()


def fake_module() -> ModuleType:
    """What stands in for ``tracer.session``: importing that takes BCC."""
    module = ModuleType("tracer.session")
    module.Session = FakeSession  # type: ignore[attr-defined]
    return module


def _mark() -> None:
    """Tell the test that we came here."""
    if name := os.environ.get("FAKE_MARK"):
        Path(name).touch()


if __name__ == "__main__":
    from tracer.cli.main import main

    sys.modules["tracer.session"] = fake_module()
    match os.environ.get("FAKE_ERROR"):
        case "user":
            FakeSession.error = MkwriteError("This kernel has no \x1b[31mBTF.", "Boot another one.", Exit.NO_BTF)
        case "bug":
            FakeSession.error = ZeroDivisionError("of all things")
        case "slow":
            FakeSession.slow = True
    main()
