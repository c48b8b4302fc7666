"""A session's counts as Prometheus metrics, built at each scrape. docs/metrics.md describes every one."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final, NamedTuple, Protocol, TypeVar

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from tracer.histogram import LOWER_NS, Histogram
from tracer.model import Hook, Outcome, Series, Snapshot, device_name
from tracer.text import printable

_log = logging.getLogger(__name__)

_Key = TypeVar("_Key")

#: Buckets of the exported histogram end at these indexes of ours: one to an octave, from 1.024 us to 34.36 s.
#: A quantile is then within a factor of two, enough for an alert, at 29 series a histogram rather than 130.
#: They are bounds of ours too (powers of two of ns), so that no count has to be guessed.
_LE_INDEXES: Final = tuple(range(LOWER_NS.index(1 << 10), LOWER_NS.index(1 << 35) + 1, 4))
_LE: Final = (*(repr(LOWER_NS[index] / 1e9) for index in _LE_INDEXES), "+Inf")

_LATENCY_LABELS: Final = ("fstype", "mountpoint", "device", "handler", "path")
_FAILURE_LABELS: Final = ("fstype", "mountpoint", "handler", "outcome")

#: What the labels of a series that got no place of its own say.
_FOLDED: Final = "other"


class SnapshotSource(Protocol):
    """What is asked of a session."""

    def snapshot(self) -> Snapshot:
        """Cumulative counts."""


class _Call(NamedTuple):
    """Label values of mkwrite_calls_total."""

    fstype: str
    mountpoint: str
    device: str
    handler: str
    path: str
    initiator: str
    outcome: str

    @classmethod
    def of(cls, series: Series) -> _Call:
        return cls(
            printable(series.fstype),
            printable(series.mountpoint),
            device_name(series.dev),
            printable(series.handler),
            series.path.value,
            series.initiator.value,
            series.outcome.value,
        )

    @property
    def folded(self) -> _Call:
        """The series that takes in what found no place: known by path, initiator and outcome only."""
        return self._replace(fstype=_FOLDED, mountpoint=_FOLDED, device=_FOLDED, handler=_FOLDED)


class _Families:
    """Every metric that there is, without samples at first."""

    def __init__(self) -> None:
        self.up = GaugeMetricFamily("mkwrite_up", "Whether the tracer's counts could be read (1) or not (0).")
        self.build = InfoMetricFamily("mkwrite_build", "Version of mkwrite, backend of its hooks, running kernel.")
        self.scrape = GaugeMetricFamily(
            "mkwrite_scrape_duration",
            "Time that it took to read the counts and build the metrics.",
            unit="seconds",
        )
        self.calls = CounterMetricFamily(
            "mkwrite_calls", "Calls of page_mkwrite handlers that returned, by outcome.", labels=_Call._fields
        )
        self.latency = HistogramMetricFamily(
            "mkwrite_call_latency",
            "Time from a handler's entry to its return.",
            labels=_LATENCY_LABELS,
            unit="seconds",
        )
        self.failures = CounterMetricFamily(
            "mkwrite_failures", "Calls that refused to make the page writable.", labels=_FAILURE_LABELS
        )
        self.in_flight = GaugeMetricFamily("mkwrite_in_flight", "Calls that have not returned yet.")
        self.wp_faults = CounterMetricFamily(
            "mkwrite_wp_faults",
            "Write-protection faults (runs of do_wp_page) by outcome.",
            labels=["outcome"],
        )
        self.lost = CounterMetricFamily("mkwrite_lost", "What the tracer missed, by kind.", labels=["kind"])
        self.hooks = GaugeMetricFamily(
            "mkwrite_hook_attached",
            "Whether a hook of the tracer is attached (1) or not (0).",
            labels=["hook", "function", "backend"],
        )
        self.dropped = GaugeMetricFamily(
            "mkwrite_series_dropped", f'Series of calls without a place of their own, counted as "{_FOLDED}".'
        )

    def __iter__(self) -> Iterator[Metric]:
        return iter(vars(self).values())


class MkwriteCollector(Collector):
    """Turns the snapshots of ``source`` into metrics; scrapes at the same time wait for each other.

    A counter never goes backwards while this object lives. At most ``max_series`` combinations of the labels
    of calls get series of their own, first come first served; the rest is counted in series named ``other``.
    """

    def __init__(self, source: SnapshotSource, version: str, max_series: int = 1000) -> None:
        self._source = source
        self._version = version
        self._max_series = max_series
        self._lock = threading.Lock()
        self._own: set[_Call] = set()
        self._highest: dict[tuple[str, ...], tuple[float, ...]] = {}
        self._backend = "none"

    def describe(self) -> Iterable[Metric]:
        """The metrics without samples, so that registering takes no snapshot."""
        return _Families()

    def collect(self) -> Iterable[Metric]:
        """Every metric; when the snapshot fails, ``mkwrite_up`` is 0 and the counts have no samples."""
        with self._lock:
            families = _Families()
            started = time.monotonic()
            try:
                snapshot = self._source.snapshot()
            except Exception as error:
                # Whatever it was: to answer "down" is the exporter's one duty then.
                _log.warning("The counts could not be read: %s", printable(str(error)))
                families.up.add_metric([], 0)
            else:
                families.up.add_metric([], 1)
                self._fill(families, snapshot)
            families.build.add_metric(
                [], {"version": self._version, "backend": self._backend, "kernel": os.uname().release}
            )
            families.scrape.add_metric([], time.monotonic() - started)
            return families

    def _fill(self, families: _Families, snapshot: Snapshot) -> None:
        backends = {hook.backend.value for hook in snapshot.hooks if hook.attached}
        self._backend = "+".join(sorted(backends)) or "none"
        calls, dropped = self._placed(snapshot)
        families.dropped.add_metric([], dropped)
        for call, histogram in calls.items():
            self._count(families.calls, call, histogram.count)
        latencies = _merged((call[: len(_LATENCY_LABELS)], histogram) for call, histogram in calls.items())
        for labels, histogram in latencies.items():
            cumulative, seconds = self._latency(labels, histogram)
            families.latency.add_metric(labels, list(zip(_LE, cumulative, strict=True)), seconds)
        for labels, number in _failures(calls).items():
            self._count(families.failures, labels, number)
        for outcome, number in snapshot.wp_faults.items():
            self._count(families.wp_faults, (outcome.value,), number)
        for kind, number in snapshot.lost.items():
            self._count(families.lost, (kind.value,), number)
        families.in_flight.add_metric([], snapshot.in_flight)
        for labels, attached in _hook_states(snapshot.hooks).items():
            families.hooks.add_metric(labels, attached)

    def _placed(self, snapshot: Snapshot) -> tuple[dict[_Call, Histogram], int]:
        """The calls by label values, and how many label sets share the series "other"."""
        calls = _merged((_Call.of(series), histogram) for series, histogram in snapshot.calls.items())
        # Of those that come together, the busiest get the places that are left.
        new = sorted(calls.keys() - self._own, key=lambda call: (-calls[call].count, call))
        self._own.update(new[: max(0, self._max_series - len(self._own))])
        homeless = calls.keys() - self._own
        return _merged((c.folded if c in homeless else c, h) for c, h in calls.items()), len(homeless)

    def _count(self, family: CounterMetricFamily, labels: tuple[str, ...], number: int) -> None:
        (highest,) = self._never_less((family.name, *labels), (number,))
        family.add_metric(labels, highest)

    def _latency(self, labels: tuple[str, ...], histogram: Histogram) -> tuple[tuple[float, ...], float]:
        """Counts up to each of ``_LE``, and the sum in seconds."""
        below = list(accumulate(histogram.buckets, initial=0))
        counts = [below[index] for index in _LE_INDEXES]
        values = (*counts, below[-1], histogram.sum_ns / 1e9)
        *cumulative, seconds = self._never_less(("latency", *labels), values)
        return tuple(cumulative), seconds

    def _never_less(self, key: tuple[str, ...], values: tuple[float, ...]) -> tuple[float, ...]:
        known = self._highest.get(key, values)
        self._highest[key] = highest = tuple(map(max, known, values))
        return highest


def exposition(collector: Collector) -> str:
    """The metrics in the text format, as a scrape would get them."""
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def _merged(pairs: Iterable[tuple[_Key, Histogram]]) -> dict[_Key, Histogram]:
    """Histograms of one key added up."""
    merged: dict[_Key, Histogram] = {}
    for key, histogram in pairs:
        merged[key] = merged[key] + histogram if key in merged else histogram
    return merged


def _failures(calls: Mapping[_Call, Histogram]) -> dict[tuple[str, ...], int]:
    """Failures by ``_FAILURE_LABELS``: zeros too, since the rate of a counter that appears with a 1 is 0."""
    failures: dict[tuple[str, ...], int] = {}
    for call, histogram in calls.items():
        for outcome in Outcome:
            if outcome.failed:
                labels = (call.fstype, call.mountpoint, call.handler, outcome.value)
                refused = histogram.count if call.outcome == outcome else 0
                failures[labels] = failures.get(labels, 0) + refused
    return failures


def _hook_states(hooks: Iterable[Hook]) -> dict[tuple[str, ...], int]:
    """0 or 1 by the labels of mkwrite_hook_attached."""
    states: dict[tuple[str, ...], int] = {}
    for hook in hooks:
        labels = (printable(hook.name), printable(hook.function), hook.backend.value)
        states[labels] = max(states.get(labels, 0), int(hook.attached))
    return states
