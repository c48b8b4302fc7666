"""A session's counts as Prometheus metrics, built at each scrape. docs/metrics.md describes every one."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final, Protocol

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tracer.export.prometheus.dirtied_ledger import DirtiedLedger
from tracer.export.prometheus.failure_ledger import FailureLedger
from tracer.export.prometheus.hook_states import HookStates
from tracer.export.prometheus.label import OTHER, Who
from tracer.export.prometheus.ledger import CallKind, Ledger, SeriesLabels
from tracer.export.prometheus.place_ledger import MountLabels
from tracer.export.prometheus.wait_ledger import WaitLedger
from tracer.export.prometheus.writable_mounts import writable_mounts
from tracer.host.mounts import MountChanges
from tracer.model.asked import asked
from tracer.model.histogram import LOWER_NS, Histogram
from tracer.model.mounts import Mount
from tracer.model.options import Filters
from tracer.model.snapshot import Snapshot, Tracepoints
from tracer.text import printable

_log = logging.getLogger(__name__)

#: Buckets of the exported histogram end at these indexes of ours: one to an octave, from 1.024 us to 34.36 s.
#: A quantile is then within a factor of two, enough for an alert, at 29 series a histogram rather than 130.
#: They are bounds of ours too (powers of two of ns), so that no count has to be guessed.
_LE_INDEXES: Final = tuple(range(LOWER_NS.index(1 << 10), LOWER_NS.index(1 << 35) + 1, 4))
_LE: Final = (*(repr(LOWER_NS[index] / 1e9) for index in _LE_INDEXES), "+Inf")

_SOURCE_LABELS: Final = ("fstype", "mountpoint", "device", "handler")
_CALL_LABELS: Final = (*_SOURCE_LABELS, *CallKind._fields)
_LATENCY_LABELS: Final = (*_SOURCE_LABELS, "path")
_FAILURE_LABELS: Final = ("fstype", "mountpoint", "class", "errno")


class SnapshotSource(Protocol):
    """What is asked of a session."""

    def snapshot(self) -> Snapshot:
        """Cumulative counts."""


class _Families:
    """Every metric that there is, without samples at first."""

    def __init__(self, who: tuple[str, ...]) -> None:
        self.up = GaugeMetricFamily("mkwrite_up", "Whether the tracer's counts could be read (1) or not (0).")
        self.build = InfoMetricFamily("mkwrite_build", "Version of mkwrite, backend of its hooks, running kernel.")
        self.scrape = GaugeMetricFamily(
            "mkwrite_scrape_duration",
            "Time that it took to read the counts and build the metrics.",
            unit="seconds",
        )
        self.calls = CounterMetricFamily(
            "mkwrite_calls", "Calls of page_mkwrite handlers that returned, by outcome.", labels=_CALL_LABELS + who
        )
        self.latency = HistogramMetricFamily(
            "mkwrite_call_latency",
            "Time from a handler's entry to its return.",
            labels=_LATENCY_LABELS + who,
            unit="seconds",
        )
        self.failures = CounterMetricFamily(
            "mkwrite_failures",
            "Refused faults, signals SIGBUS that no fault caused, and errors at writeback.",
            labels=_FAILURE_LABELS + who,
        )
        self.told = CounterMetricFamily(
            "mkwrite_writeback_told",
            "How often a program was told, by msync, fsync or close, of writes lost at writeback.",
        )
        self.forgotten = CounterMetricFamily(
            "mkwrite_writeback_forgotten",
            "How often a file left memory that had lost writes at writeback of which no program was told.",
        )
        self.in_flight = GaugeMetricFamily("mkwrite_inflight", "Calls that have not returned yet.")
        self.oldest = GaugeMetricFamily(
            "mkwrite_oldest_inflight", "How long the oldest call that has not returned yet has lasted.", unit="seconds"
        )
        self.waits = CounterMetricFamily(
            "mkwrite_wait",
            "What calls waited for, and how long.",
            labels=["fstype", "mountpoint", "reason"],
            unit="seconds",
        )
        self.dirtied = CounterMetricFamily(
            "mkwrite_dirtied",
            "Pages that calls made writable, in bytes.",
            labels=["fstype", "mountpoint"],
            unit="bytes",
        )
        self.wp_faults = CounterMetricFamily(
            "mkwrite_wp_faults",
            "Write-protection faults (runs of do_wp_page) by outcome.",
            labels=["outcome"],
        )
        self.lost = CounterMetricFamily("mkwrite_lost", "What the tracer missed, by kind.", labels=["kind"])
        self.hooks = GaugeMetricFamily(
            "mkwrite_hook_attached",
            "0 for each hook of the tracer that is not attached; those that are have no series.",
            labels=["hook", "function", "backend", "reason"],
        )
        self.hooks_attached = GaugeMetricFamily(
            "mkwrite_hooks_attached", "Hooks of the tracer that are attached.", labels=["backend"]
        )
        self.sigbus = CounterMetricFamily(
            "mkwrite_sigbus", "SIGBUS that tasks brought on themselves (tracepoint backend only)."
        )
        self.protection_faults = CounterMetricFamily(
            "mkwrite_protection_faults",
            "Page faults of writes to pages that were not writable, by processor mode (tracepoint backend only).",
            labels=["mode"],
        )
        self.throttle_pauses = CounterMetricFamily(
            "mkwrite_throttle_pauses",
            "Pauses of tasks that dirtied pages too fast, by device (tracepoint backend only).",
            labels=["bdi"],
        )
        self.throttle_time = CounterMetricFamily(
            "mkwrite_throttle", "How long those pauses were to last.", labels=["bdi"], unit="seconds"
        )
        self.throttle_dirtied = CounterMetricFamily(
            "mkwrite_throttle_dirtied", "What was dirtied before those pauses.", labels=["bdi"], unit="bytes"
        )
        self.runs = CounterMetricFamily(
            "mkwrite_bpf_runs", "Runs of the tracer's BPF programs that the kernel timed.", labels=["program"]
        )
        self.run_time = CounterMetricFamily(
            "mkwrite_bpf_run", "Time that those runs took.", labels=["program"], unit="seconds"
        )
        self.dropped = GaugeMetricFamily(
            "mkwrite_series_dropped", f'Sources of calls without series of their own, counted as "{OTHER}".'
        )

    def __iter__(self) -> Iterator[Metric]:
        return iter(vars(self).values())


class MkwriteCollector(Collector):
    """Turns the snapshots of ``source`` into metrics; readings at the same time wait for each other.

    A counter never goes backwards while this object lives, see ``Ledger``. ``mounts`` tells what is mounted now.
    """

    def __init__(
        self,
        source: SnapshotSource,
        version: str,
        max_series: int = 1000,
        who: Who | None = None,
        mounts: Callable[[], Iterable[Mount]] | None = None,
        filters: Filters = Filters(),  # noqa: B008  # frozen
    ) -> None:
        self._source = source
        self._version = version
        self._mounts = mounts or MountChanges().read  # opened now: it may not be possible later
        self._filters = filters
        self._who = who or Who()
        self._ledger = Ledger(self._who, max_series)
        self._failures = FailureLedger(self._who, max_series)
        self._waits = WaitLedger(max_series)
        self._dirtied = DirtiedLedger(max_series)
        self._hooks = HookStates()
        self._lock = threading.Lock()
        self._highest: dict[tuple[str, ...], int] = {}
        self._backend = "none"
        self.up = False

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples, so that registering takes no snapshot."""
        return _Families(self._who.labels)

    def read(self) -> Snapshot | None:
        """Book what was counted since the last reading; None when the counts cannot be read.

        A filesystem's calls are booked under the name that it has then: whoever reads when the mounts change gets
        them right.
        """
        with self._lock:
            read = self._read()
            return read and read[0]

    def collect(self) -> Iterable[Metric]:
        """Every metric; when the snapshot fails, ``mkwrite_up`` is 0 and the counts have no samples."""
        with self._lock:
            families = _Families(self._who.labels)
            started = time.monotonic()
            read = self._read()
            families.up.add_metric([], int(self.up))
            if read:
                self._fill(families, *read)
            families.build.add_metric(
                [], {"version": self._version, "backend": self._backend, "kernel": os.uname().release}
            )
            families.scrape.add_metric([], time.monotonic() - started)
            return families

    def _read(self) -> tuple[Snapshot, list[Mount]] | None:
        try:
            snapshot, mounts = self._source.snapshot(), list(self._mounts())
        except Exception as error:
            # Whatever it was: to answer "down" is the exporter's one duty then.
            _log.warning("The counts could not be read: %s", printable(str(error)))
            self.up = False
            return None
        self.up = True
        mounted = {printable(mount.mountpoint) for mount in mounts}
        self._dirtied.add(self._ledger.book(snapshot, mounted), mounted)
        if asked(snapshot.failures):
            self._failures.book(snapshot.failures, mounted, snapshot.gone_failures)
        if asked(snapshot.waits):
            self._waits.book(snapshot.waits, mounted, snapshot.gone_waits)
        self._hooks.note(snapshot.hooks)
        return snapshot, mounts

    def _fill(self, families: _Families, snapshot: Snapshot, mounts: list[Mount]) -> None:
        backends = {hook.backend.value for hook in snapshot.hooks if hook.attached}
        self._backend = "+".join(sorted(backends)) or "none"
        families.dropped.add_metric([], self._ledger.dropped)
        for source, kinds in self._ledger.calls():
            self._fill_source(families, source, kinds)
        places = writable_mounts(mounts, self._filters)
        if asked(snapshot.failures):
            for (place, failure), number in self._failures.counts(places):
                failed = [place.fstype, place.mountpoint, failure.kind.value, failure.errno, *place.who]
                families.failures.add_metric(failed, number)
            self._count(families.told, (), snapshot.told)
            self._count(families.forgotten, (), snapshot.forgotten)
        if not snapshot.tracepoints:
            # No alert needs zeros of a filesystem that nobody writes to by mappings.
            places &= {MountLabels(fstype, mountpoint) for (fstype, mountpoint, *_), _ in self._ledger.calls()}
            if asked(snapshot.waits):
                for place, reason, ns in self._waits.counts(places):
                    families.waits.add_metric([place.fstype, place.mountpoint, reason.value], ns / 1e9)
            for place, number in self._dirtied.counts(places):
                families.dirtied.add_metric([place.fstype, place.mountpoint], number)
        for wp_outcome, number in snapshot.wp_faults.items():
            self._count(families.wp_faults, (wp_outcome.value,), number)
        for kind, number in snapshot.lost.items():
            self._count(families.lost, (kind.value,), number)
        if snapshot.tracepoints:
            self._fill_tracepoints(families, snapshot.tracepoints)
        for program, (number, ns) in snapshot.runs.items():
            families.runs.add_metric([program], number)
            families.run_time.add_metric([program], ns / 1e9)
        families.in_flight.add_metric([], snapshot.in_flight)
        families.oldest.add_metric([], snapshot.oldest_in_flight_ns / 1e9)
        self._hooks.fill(families.hooks, families.hooks_attached, snapshot.hooks)

    def _fill_tracepoints(self, families: _Families, found: Tracepoints) -> None:
        self._count(families.sigbus, (), found.sigbus)
        for mode, number in found.wp_faults.items():
            self._count(families.protection_faults, (mode.value,), number)
        for bdi, throttled in found.throttled.items():
            labels = (printable(bdi),)
            self._count(families.throttle_pauses, labels, throttled.pauses)
            families.throttle_time.add_metric(labels, throttled.pause_ns / 1e9)
            self._count(families.throttle_dirtied, labels, throttled.dirtied)

    def _fill_source(self, families: _Families, source: SeriesLabels, kinds: Mapping[CallKind, Histogram]) -> None:
        *filesystem, who = source
        by_path: dict[str, Histogram] = {}
        for kind, histogram in kinds.items():
            families.calls.add_metric([*filesystem, *(label.value for label in kind), *who], histogram.count)
            path = kind.path.value
            by_path[path] = by_path[path] + histogram if path in by_path else histogram
        for path, histogram in by_path.items():
            below = list(accumulate(histogram.buckets, initial=0))
            cumulative = [*(below[index] for index in _LE_INDEXES), below[-1]]
            families.latency.add_metric(
                [*filesystem, path, *who], list(zip(_LE, cumulative, strict=True)), histogram.sum_ns / 1e9
            )

    def _count(self, family: CounterMetricFamily, labels: tuple[str, ...], number: int) -> None:
        key = (family.name, *labels)
        self._highest[key] = highest = max(number, self._highest.get(key, 0))
        family.add_metric(labels, highest)
