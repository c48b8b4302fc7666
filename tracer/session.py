"""One tracing session: open, snapshot, events, finish.

>>> with Session(Options()) as session:  # doctest: +SKIP
...     before = session.snapshot()
...     for event in session.events(timeout_s=1.0):
...         print(event.comm, event.file, event.outcome)
...     for series, histogram in session.snapshot().since(before).calls.items():
...         print(series.fstype, series.handler, histogram.count, histogram.quantile(0.99))
"""

from __future__ import annotations

import ctypes as ct
import threading
import time
from collections import deque
from types import TracebackType
from typing import Final

from tracer.errors import MkwriteError
from tracer.histogram import Histogram
from tracer.host.cgroups import Cgroups
from tracer.host.filters import check
from tracer.host.mounts import Mounts, MountTable
from tracer.kernel.symbols import Symbols
from tracer.model import Backend, CallEvent, Hook, Loss, Options, Series, Snapshot, WpOutcome
from tracer.naming import RACED, Naming, path_of
from tracer.probes.maps import RawSeries
from tracer.probes.plan import CORE, RACED_AFTER_NS, hook_handlers, open_tracer

#: ``enum loss`` of bpf/maps.h.
_LOSSES: Final = (
    Loss.SERIES_FULL,
    Loss.INFLIGHT_FULL,
    Loss.EVENTS_FULL,
    Loss.UNMATCHED_ENTRY,
    Loss.UNMATCHED_RETURN,
    Loss.FILESYSTEMS_FULL,
)
# event reasons, bpf/event.h
_NAMED: Final = 0x4
_TO_READ: Final = 0x1 | 0x2


class Session:
    """Traces from construction to ``finish`` or ``close``. Safe to use from several threads."""

    def __init__(self, options: Options = Options()) -> None:  # noqa: B008  # frozen
        """Attach. Raises UsageError for filters that name what does not exist, MkwriteError for what hinders."""
        mounts = Mounts.read()
        self._symbols = Symbols([CORE])
        check(options.filters, mounts, self._symbols.handlers().keys())
        self._mounts = MountTable()
        self._naming = Naming(options.by, self._symbols, self._mounts, Cgroups(mounts))
        self._lock = threading.Lock()
        self._events: deque[CallEvent] = deque()
        self._all_handlers = not options.filters.handlers
        try:
            opened = open_tracer(options, self._symbols, mounts)
        except BaseException:
            self._mounts.close()
            raise
        self._tracer = opened.tracer
        self._handlers = set(opened.handlers)
        self._notes = opened.notes
        self.backend: Backend = opened.backend
        self._opened_ns = time.monotonic_ns()
        # Returns that came before the entry was hooked are no loss: those calls began before we did.
        self._unclaimed = self._tracer.maps.lost()[_LOSSES.index(Loss.UNMATCHED_RETURN)]
        self._final: Snapshot | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """What is attached now."""
        return self._tracer.hooks

    def snapshot(self) -> Snapshot:
        """Counts since the session opened."""
        with self._lock:
            if self._final is not None:
                return self._final
            self._follow_modules()
            self._drain()
            return self._read(self._lost(), RACED_AFTER_NS)

    def events(self, timeout_s: float = 0.0) -> list[CallEvent]:
        """Failures and slow calls that have come, oldest first; waits up to ``timeout_s`` for the first."""
        if timeout_s > 0 and not self._events and self._final is None:
            self._tracer.events.wait(timeout_s)
        with self._lock:
            if self._final is None:
                self._drain()
            found = list(self._events)
            self._events.clear()
            return found

    def finish(self) -> Snapshot:
        """Detach every hook, then return the final counts. Events that came before stay readable."""
        with self._lock:
            if self._final is None:
                hooks = self._tracer.hooks
                # What returns while hooks go one by one is no loss.
                lost = self._lost()
                self._tracer.detach()
                self._drain()
                # No fault is under way any more: a call that still waits for its PTE has raced.
                self._final = self._read(lost, 0, hooks)
                self._tracer.close()
                self._mounts.close()
            return self._final

    def close(self) -> None:
        """End the session; nothing of it stays in the kernel."""
        self.finish()

    def _follow_modules(self) -> None:
        """Hook the handlers of modules loaded since, where handlers are hooked one by one."""
        if not self._symbols.refresh() or not (self._handlers and self._all_handlers):
            return
        found = sorted(self._symbols.handlers().keys() - self._handlers)
        self._handlers.update(found)
        self._notes += tuple(hook_handlers(self._tracer, found))

    def _drain(self) -> None:
        kind = self._tracer.events.type
        for record in self._tracer.events.take():
            event = kind.from_buffer_copy(record.ljust(ct.sizeof(kind), b"\0"))
            path = record[kind.path.offset : kind.path.offset + event.path_bytes]
            file = path_of(path, bool(event.deleted), bool(event.cut))
            if event.reason & _NAMED:
                self._naming.name_series(event, file)
            if event.reason & _TO_READ:
                self._events.append(self._naming.event(event, file))

    def _lost(self) -> dict[Loss, int]:
        lost = dict.fromkeys(Loss, 0)
        lost.update(zip(_LOSSES, self._tracer.maps.lost(), strict=True))
        lost[Loss.UNMATCHED_RETURN] -= self._unclaimed
        lost[Loss.MISSED_PROBE] = self._tracer.missed()
        return lost

    def _read(self, lost: dict[Loss, int], raced_after_ns: int, hooks: tuple[Hook, ...] | None = None) -> Snapshot:
        maps = self._tracer.maps
        raw = maps.histograms()
        now = time.monotonic_ns()
        in_flight = 0
        for slot in maps.slots():
            if slot.series.kind and now - slot.start_ns - slot.latency_ns >= raced_after_ns:
                # The programs will count it when the task comes back, if it does.
                key = slot.series._replace(kind=slot.series.kind | RACED)
                raw[key] = raw.get(key, Histogram()) + Histogram.of(slot.latency_ns)
            else:
                in_flight += 1
        fstypes = maps.fstypes()
        calls: dict[Series, Histogram] = {}
        for key, histogram in raw.items():
            series = self._naming.series(RawSeries(*key), fstypes)
            known = calls.get(series)
            calls[series] = histogram if known is None else known + histogram
        return Snapshot(
            time_ns=now,
            elapsed_ns=now - self._opened_ns,
            calls=calls,
            wp_faults=dict(zip(WpOutcome, maps.wp_counts(), strict=False)),
            lost=lost,
            in_flight=in_flight,
            hooks=self._tracer.hooks if hooks is None else hooks,
            notes=self._notes,
        )


__all__ = ["MkwriteError", "Session"]
