"""One tracing session: open, snapshot, events, finish.

>>> with Session(Options()) as session:  # doctest: +SKIP
...     before = session.snapshot()
...     for event in session.events(timeout_s=1.0):
...         print(event.comm, event.file, event.outcome)
...     for series, histogram in session.snapshot().since(before).calls.items():
...         print(series.fstype, series.handler, histogram.count, histogram.quantile(0.99))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TypeVar

from tracer.decode import file_losses, freezes
from tracer.decode.failures import SIGNAL_WITHIN_NS, FailureReader
from tracer.decode.names import Naming, path_of
from tracer.decode.remembered import Remembered
from tracer.decode.slow_calls import CallReader
from tracer.decode.snapshots import Tally
from tracer.decode.unread import Unread
from tracer.host.cgroups import Cgroups
from tracer.host.liveness import IsGone, gone_in
from tracer.host.mounts import Mounts, MountTable
from tracer.kernel.btf import Btf
from tracer.kernel.symbols import Symbols
from tracer.model.asked import FAILURES, SLOW_CALLS, WAITS
from tracer.model.calls import CallEvent, Filesystem, WpOutcome
from tracer.model.failures import Burst, Failure
from tracer.model.freezes import Freeze
from tracer.model.hooks import Backend, Hook, Loss
from tracer.model.options import Options
from tracer.model.snapshot import Snapshot
from tracer.model.waits import InFlight
from tracer.model.writeback import FileLosses
from tracer.probes import failures, in_flight, wait_functions, writeback
from tracer.probes.abi import LOSSES, OLD_NS, RACED_AFTER_NS
from tracer.probes.arrival import Arrival
from tracer.probes.plan import CORE, hook_handlers, open_tracer
from tracer.probes.program import runs
from tracer.probes.selection import Selection

T = TypeVar("T")


class Session:
    """Traces from construction to ``finish`` or ``close``. Safe to use from several threads.
    Asking for what ``options`` did not raises UsageError, which names the option.
    """

    def __init__(self, options: Options = Options()) -> None:  # noqa: B008  # frozen
        """Attach. Raises UsageError for filters that name what does not exist, MkwriteError for what hinders."""
        self.options = options
        mounts = Mounts.read()
        functions = (*failures.functions(), *writeback.functions()) if options.failures else ()
        waits = (*wait_functions.names(), *in_flight.SYMBOLS) if options.waits else ()
        self._symbols = Symbols([CORE, *functions, *waits])
        cgroups = Cgroups(mounts)
        selection = Selection(options.filters, mounts, cgroups, self._symbols)
        self._mounts = MountTable()
        self._naming = Naming(options.by, self._symbols, self._mounts, cgroups)
        self._lock = threading.Lock()
        self._events: Unread[CallEvent] = Unread()
        self._failures: Unread[Failure] = Unread()
        self._gone = gone_in(options.by, cgroups) if options.make_room else None
        self._asked = frozenset(options.filters.handlers)
        try:
            opened = open_tracer(options, self._symbols, selection)
        except BaseException:
            self._mounts.close()
            raise
        self._tracer, self._waits = opened.tracer, opened.waits
        #: Those that are hooked one by one, as they were then.
        self._handlers = {name: h for name, h in self._symbols.handlers().items() if name in opened.handlers}
        self._by_handler = bool(opened.handlers)
        self._notes, self._inner, self._counts = opened.notes, opened.inner, opened.counts
        self._parts = tuple(part for part in (self._tracer, self._counts, self._waits) if part)
        self._final: Snapshot | None = None
        self._tally = Tally(self._tracer.maps, self._naming, options.max_series, options.make_room)
        self._generations: dict[int, int] = {}
        self._mounts.follow(self._generations_now, exact=opened.sees_ends)
        self._calls = CallReader(self._tracer.events.type, self._naming)
        ring = self._tracer.failures if options.failures else None
        self._reader = FailureReader(ring.type, self._naming, opened.backend is Backend.TRACEPOINT) if ring else None
        self.backend: Backend = opened.backend
        self._arrival = Arrival(ring.fileno() for ring in (self._tracer.events, self._tracer.failures) if ring)
        self._opened_ns = time.monotonic_ns()
        self._bursts: dict[Burst, int] = {}
        maps, clock = self._tracer.maps, self._naming.clock
        self._file_losses = Remembered(lambda: file_losses.read(self._tracer, clock))
        self._freezes = Remembered(lambda: freezes.decode(maps.freezes(), clock))

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """What is attached; after ``finish``, what was."""
        return self._final.hooks if self._final else tuple(hook for part in self._parts for hook in part.hooks)

    def snapshot(self) -> Snapshot:
        """Return counts since the session opened."""
        with self._lock:
            if self._final is not None:
                return self._final
            self._follow_modules()
            return self._read(self._lost(), RACED_AFTER_NS, gone=self._gone)

    def events(self, timeout_s: float = 0.0) -> list[CallEvent]:
        """Slow calls that have come, oldest first; waits up to ``timeout_s`` for the first."""
        SLOW_CALLS.unless(self.options.slower_ns is not None)
        return self._fetch(self._events, timeout_s)

    def failures(self, timeout_s: float = 0.0) -> list[Failure]:
        """Failures that have come, oldest first; waits as ``events`` does."""
        FAILURES.unless(self.options.failures)
        return self._fetch(self._failures, timeout_s)

    def _fetch(self, unread: Unread[T], timeout_s: float) -> list[T]:
        until = time.monotonic() + timeout_s
        with self._arrival.waiting() as wait:
            while True:
                with self._lock:
                    if self._final is None:
                        self._drain()
                    found = unread.take()
                left_s = until - time.monotonic()
                if found or left_s <= 0 or self._final is not None:
                    return found
                wait(self._at_most(left_s))

    def wait(self, timeout_s: float) -> None:
        """Wait for an event or a failure, up to ``timeout_s``; less where a failure still lacks its signal."""
        with self._arrival.waiting() as wait:
            wait(self._at_most(timeout_s))

    def _at_most(self, timeout_s: float) -> float:
        """Tell failures whose signal has not come in time without it."""
        return min(timeout_s, SIGNAL_WITHIN_NS / 1e9) if self._reader and self._reader.waits else timeout_s

    def follow_modules(self) -> None:
        """Attach to what modules loaded since need; a snapshot does so, too."""
        with self._lock:
            if self._final is None:
                self._follow_modules()

    def bursts(self) -> dict[Burst, int]:
        """Failures so far of each process, file and cause, those included that are only counted."""
        FAILURES.unless(self.options.failures)
        with self._lock:
            return self._bursts if self._final is not None else self._tracer.maps.bursts()

    def file_losses(self) -> FileLosses:
        """Files that lost writes at writeback, and who was told of it."""
        FAILURES.unless(self.options.failures)
        with self._lock:
            return self._file_losses.read(self._final is None)

    def freezes(self) -> Mapping[Filesystem, Freeze]:
        """Filesystems that were seen to be frozen or thawed, and by whom."""
        WAITS.unless(self.options.waits)
        with self._lock:
            return self._freezes.read(self._final is None)

    def has_ended(self, failure: Failure) -> bool:
        """Whether the failure's filesystem is known to have ended: its device number is another's, or nobody's."""
        with self._lock:
            return self._generations_now().get(failure.dev, 0) != failure.generation

    def in_flight(self) -> list[InFlight]:
        """Return the calls that have not returned yet, the oldest first."""
        WAITS.unless(self.options.waits)
        with self._lock:
            return sorted(self._in_flight() if self._final is None else (), key=lambda call: -call.age_ns)

    def finish(self) -> Snapshot:
        """Detach every hook, then return the final counts. Events that came before stay readable."""
        with self._lock:
            if self._final is None:
                self._arrival.end()
                hooks = self.hooks
                # What returns while hooks go one by one is no loss.
                lost = self._lost()
                self._tracer.detach()
                if self._waits:  # as long as calls are counted, their waits are told
                    self._waits.detach()
                self._drain()
                if self._reader:
                    self._failures.add(self._reader.rest())
                self._bursts = self._tracer.maps.bursts()
                self._file_losses.read()
                self._freezes.read()
                # No fault is under way any more: a call that still waits for its PTE has raced.
                self._final = self._read(lost, 0, hooks)
                for part in reversed(self._parts):
                    part.close()
                self._mounts.close()
            return self._final

    def close(self) -> None:
        """End the session; nothing of it stays in the kernel."""
        self.finish()

    def _follow_modules(self) -> None:
        """Attach to what modules loaded since, or again, have: errnos, waits, handlers that are hooked one by one."""
        if not self._symbols.refresh():
            return
        if self._inner:
            with Btf() as btf:
                self._inner.follow_modules(btf)
        if self._waits:
            self._waits.follow_modules()
        if not self._by_handler:
            return
        found = {name: h for name, h in self._symbols.handlers().items() if not self._asked or name in self._asked}
        # The kernel disarms the probes of a module that goes, and leaves them to us (kprobes_module_callback).
        for name in [name for name, handler in self._handlers.items() if found.get(name) != handler]:
            self._tracer.release(name)
            del self._handlers[name]
        new = sorted(found.keys() - self._handlers.keys())
        self._handlers.update((name, found[name]) for name in new)
        self._notes += tuple(hook_handlers(self._tracer, new))
        if new:
            self._tracer.maps.attached()

    def _in_flight(self) -> Iterator[InFlight]:
        for event, path, reason in self._waits.in_flight() if self._waits else ():
            yield self._naming.in_flight(event, path_of(path, bool(event.deleted), bool(event.cut)), reason)

    def _ages(self, ages: list[int]) -> list[int]:
        """How long the calls of the slots have been in flight, if they still are. Asked for where one is old only."""
        if max(ages, default=0) < OLD_NS or not self._waits or not self._waits.sees_all:
            return ages
        seen = (int(event.latency_ns) for event, _, _ in self._waits.in_flight())
        return [*(age for age in ages if age < OLD_NS), *(age for age in seen if age >= OLD_NS)]

    def _generations_now(self) -> Mapping[int, int]:
        if self._final is None:
            self._generations = {dev: number.generation for dev, number in self._tracer.maps.numbers().items()}
        return self._generations

    def _drain(self) -> None:
        slow = list(self._calls.read(self._tracer.events.take()))
        ring = self._tracer.failures
        failed = list(self._reader.read(ring.take())) if self._reader and ring else []
        self._events.add(slow)
        self._failures.add(failed)
        if slow or failed:
            self._arrival.wake()  # who waits for them in another thread finds the rings empty

    def _lost(self) -> dict[Loss, int]:
        lost = dict.fromkeys(Loss, 0)
        lost.update(zip(LOSSES, self._tracer.maps.lost(), strict=True))
        lost[Loss.MISSED_PROBE] = sum(part.missed() for part in self._parts)
        if self._counts:
            lost[Loss.SERIES_FULL] += self._counts.full()
        return lost

    def _read(
        self,
        lost: dict[Loss, int],
        raced_after_ns: int,
        hooks: tuple[Hook, ...] | None = None,
        gone: Callable[[], IsGone] | None = None,
    ) -> Snapshot:
        now = time.monotonic_ns()
        counted = self._tally.read(now, raced_after_ns, self._drain, gone, last=hooks is not None)
        lost[Loss.EVENTS_FULL] += self._events.dropped + self._failures.dropped
        ages = self._ages(counted.ages)
        self._file_losses.read()  # which sees what was forgotten
        told, forgotten = self._tracer.maps.tellings()
        return Snapshot(
            monotonic_ns=now,
            elapsed_ns=now - self._opened_ns,
            calls=counted.calls,
            wp_faults={} if self._counts else dict(zip(WpOutcome, self._tracer.maps.wp_counts(), strict=False)),
            lost=lost,
            in_flight=len(ages),
            oldest_in_flight_ns=max(ages, default=0),
            hooks=self.hooks if hooks is None else hooks,
            notes=self._notes,
            failures=counted.failures if self.options.failures else FAILURES,
            tracepoints=self._counts.read() if self._counts else None,
            gone=counted.removed.calls,
            gone_failures=counted.removed.failures,
            gone_waits=counted.removed.waits,
            runs=runs(one for part in self._parts for one in part.programs),
            waits=counted.waits if self.options.waits else WAITS,
            told=told,
            forgotten=forgotten,
        )
