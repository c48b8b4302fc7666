"""A session's time: opening it, following its events, slicing it into intervals, ending it in good order."""

from __future__ import annotations

import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final

import click

from tracer.errors import Exit, MkwriteError
from tracer.model.failures import Event, Failure
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.model.snapshot import Snapshot

if TYPE_CHECKING:
    from tracer.latency.stuck import StuckCall
    from tracer.session import Session

#: How soon a request to end is heard, and how often events are fetched.
SLICE_NS: Final = 200_000_000
#: Failures kept of an interval, for JSON: memory has an end; their number is in the counts.
KEPT_FAILURES: Final = 16384
#: A call that lasts for so long is stuck, unless a user says otherwise.
STUCK_NS: Final = 1_000_000_000
#: A moment that never comes.
NEVER_NS: Final = sys.maxsize

Pause = Callable[[float], None]


@contextmanager
def opened(options: Options, *, calls: bool = False) -> Iterator[Session]:
    """Provide an open session; ``calls``: it is of no use without calls.

    Compiling takes a while: on a terminal a spinner on stderr says so.
    """
    from tracer.session import Session

    with ExitStack() as stack:
        with attaching():
            session = stack.enter_context(Session(options))
        if calls and session.backend is Backend.TRACEPOINT:
            raise no_calls(session.snapshot().notes[0])
        yield session


def no_calls(note: str) -> MkwriteError:
    """Return what a command ends with that shows calls and nothing else."""
    return MkwriteError(
        f"Calls and their latencies cannot be seen here: {note}",
        "Use a kernel that lets its functions be hooked; here, `mkwrite sigbus`, `count` and `top` show what there is.",
        Exit.NO_HOOKS,
    )


def attaching() -> AbstractContextManager[object]:
    """On a terminal, a spinner on stderr: attaching takes a while."""
    if sys.stderr is None or not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status("attaching...")


def announce(session: Session, limits: str = "") -> None:
    """Print on stderr that the hooks are on: what happens from now on is seen, and a signal ends in good order.

    ``limits`` is a sentence on what is not shown.

    Call it once ``Stop`` is entered, and the snapshot is taken that counts are told from.
    """
    click.echo(f"Tracing with the {session.backend} backend; Ctrl-C ends. {limits}".rstrip(), err=True)


class Stop:
    """Whether to end: on the first Ctrl-C, SIGTERM or SIGHUP (``signals``), which are noted while this is entered.

    An exception could surface anywhere, in a callback of BCC even, where it is lost. A second signal does
    raise KeyboardInterrupt, for the case that the orderly end takes too long.
    """

    SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self.requested = False
        #: The signal that asked.
        self.number = 0
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Stop:
        for number in self._signals:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:  # as nohup and "&" have it
                self._before[number] = handler
                signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested, self.number = True, number


def until(duration_ns: int | None) -> int:
    """Return the moment of CLOCK_MONOTONIC when the duration, from now on, is over (None: never)."""
    return NEVER_NS if duration_ns is None else time.monotonic_ns() + duration_ns


def follow(session: Session, stop: Stop, until_ns: int = NEVER_NS, pause: Pause | None = None) -> Iterator[list[Event]]:
    """Batches of slow calls and failures, as they come, until ``until_ns`` of CLOCK_MONOTONIC or until asked to stop.

    Events must be fetched even when nobody reads them, or the ring buffer fills up and a loss is reported.
    ``pause(seconds)`` is where to wait for events; by default, in the session.
    """
    while not stop.requested and (left := until_ns - time.monotonic_ns()) > 0:
        seconds = min(left, SLICE_NS) / 1e9
        (session.wait if pause is None else pause)(seconds)
        yield taken(session)


def taken(session: Session) -> list[Event]:
    """Slow calls and failures that have come, as the session was asked for them, oldest first."""
    slow = session.events() if session.options.slower_ns is not None else []
    failures = session.failures() if session.options.failures else []
    return sorted((*slow, *failures), key=lambda event: event.time_ns)


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened in an interval, what happened since the start, and the interval's last failures, and how many
    there were before these.

    ``stuck``: the calls that have lasted for ``STUCK_NS`` at its end, of a session with waits.
    """

    counts: Snapshot
    total: Snapshot
    failures: tuple[Failure, ...]
    stuck: tuple[StuckCall, ...]
    omitted: int = 0


def intervals(
    session: Session,
    before: Snapshot,
    stop: Stop,
    every_ns: int,
    duration_ns: int | None = None,
    iterations: int | None = None,
    pause: Pause | None = None,
) -> Iterator[Interval]:
    """Yield an interval each ``every_ns``, until the duration or the iterations are over or a stop is asked for.

    The first one began with the snapshot ``before``. The last one may be shorter; its rates are right all the same.
    """
    from tracer.latency.stuck import hooked_calls

    due = time.monotonic_ns()
    end = until(duration_ns)
    number = 0
    while True:
        due = max(due + every_ns, time.monotonic_ns())
        failures: deque[Failure] = deque(maxlen=KEPT_FAILURES)
        came = 0
        for events in follow(session, stop, min(due, end), pause):
            found = [event for event in events if isinstance(event, Failure)]
            failures.extend(found)
            came += len(found)
        total = session.snapshot()
        stuck = hooked_calls(session, STUCK_NS) if session.options.waits else ()
        yield Interval(total.since(before), total, tuple(failures), tuple(stuck), came - len(failures))
        before = total
        number += 1
        if stop.requested or number == iterations or time.monotonic_ns() >= end:
            return
