"""A session of made-up counts: what the command line is tried on where no kernel is to be traced.

Run as a program, it is ``mkwrite`` with such a session.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, TracebackType
from typing import ClassVar

from failure_samples import REFUSED
from samples import HOOKS, event, series, snapshot

from tracer.errors import Exit, MkwriteError
from tracer.model.asked import FAILURES, SLOW_CALLS, WAITS
from tracer.model.calls import CallEvent, Filesystem, Outcome
from tracer.model.failures import Burst, Class, Failure, FailureSeries
from tracer.model.freezes import Freeze
from tracer.model.histogram import Histogram
from tracer.model.hooks import Backend, Hook
from tracer.model.options import Options
from tracer.model.snapshot import Snapshot
from tracer.model.waits import InFlight, Wait, WaitSeries, WaitTime
from tracer.model.writeback import FileLosses


class FakeSession:
    """Each snapshot has 100 calls of 4 us more than the last, 3 us of them in the journal, and one SIGBUS.

    A fetch brings one of what was asked; what was not asked for raises, as it does of a real one.
    """

    opened: ClassVar[list[Options]] = []
    closed: ClassVar[int] = 0
    #: What each fetch of failures brings, then none; None: the same one each time.
    batches: ClassVar[list[list[Failure]] | None] = None
    seen_of_each: ClassVar[int] = 1
    backend: ClassVar[Backend] = Backend.FENTRY
    #: What opening raises, if anything.
    error: ClassVar[BaseException | None] = None
    #: Whether opening takes a minute.
    slow: ClassVar[bool] = False
    backend: Backend = Backend.FENTRY

    def __init__(self, options: Options = Options()) -> None:  # noqa: B008
        FakeSession.opened.append(options)
        self.options = options
        self._taken = 0
        self._start = time.monotonic_ns()
        self._batches = itertools.repeat([REFUSED]) if FakeSession.batches is None else iter(FakeSession.batches)

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
        full = FailureSeries("ext4", "/srv", 8 << 20 | 1, Class.REFUSED, "ENOSPC")
        journal = WaitSeries("ext4", "/srv", 8 << 20 | 1, "ext4_page_mkwrite", Wait.JOURNAL)
        return replace(
            snapshot(calls, time.monotonic_ns() - self._start),
            failures={full: self._taken} if self.options.failures else FAILURES,
            waits={journal: WaitTime(100 * self._taken, 300_000 * self._taken, 3000)} if self.options.waits else WAITS,
        )

    def events(self, timeout_s: float = 0.0) -> list[CallEvent]:
        SLOW_CALLS.unless(self.options.slower_ns is not None)
        _mark()
        time.sleep(min(timeout_s, 0.01))
        return [event()]

    def failures(self, timeout_s: float = 0.0) -> list[Failure]:
        FAILURES.unless(self.options.failures)
        _mark()
        time.sleep(min(timeout_s, 0.01))
        return next(self._batches, [])

    def wait(self, timeout_s: float) -> None:
        _mark()
        time.sleep(min(timeout_s, 0.01))

    def has_ended(self, failure: Failure) -> bool:
        return False

    def bursts(self) -> dict[Burst, int]:
        FAILURES.unless(self.options.failures)
        return {failure.burst: FakeSession.seen_of_each for batch in FakeSession.batches or [] for failure in batch}

    def freezes(self) -> dict[Filesystem, Freeze]:
        return {}

    def file_losses(self) -> FileLosses:
        return {}

    def in_flight(self) -> list[InFlight]:
        WAITS.unless(self.options.waits)
        return []

    def follow_modules(self) -> None:
        pass

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
