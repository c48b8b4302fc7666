"""What mapped files may still ask of each filesystem, as Prometheus metrics; docs/commands/risk.md describes them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tracer.mappings.risk import Assessment, Forecasts, LimitedFilesystem, forecasts
from tracer.mappings.survey import Survey, survey
from tracer.model.calls import device_name
from tracer.text import printable

_log = logging.getLogger(__name__)

_LABELS = ("fstype", "mountpoint", "device")


class _Families:
    """Every metric that there is, without samples at first."""

    def __init__(self) -> None:
        self.unallocated = GaugeMetricFamily(
            "mkwrite_risk_unallocated_bytes",
            "What mapped files may still ask of the filesystem's limit that is nearest to refusing them.",
            labels=_LABELS,
        )
        self.available = GaugeMetricFamily(
            "mkwrite_risk_available_bytes", "What that limit (free space, a quota) has left for them.", labels=_LABELS
        )
        self.refusal = GaugeMetricFamily(
            "mkwrite_risk_time_to_refusal_seconds",
            "Time until a write is refused, at the rate at which space went between the last two looks; +Inf: none.",
            labels=_LABELS,
        )
        self.beyond = GaugeMetricFamily(
            "mkwrite_risk_beyond_end_bytes",
            "Bytes of whole pages that are mapped beyond the end of their files: any touch of them is a SIGBUS.",
            labels=_LABELS,
        )
        self.duration = GaugeMetricFamily(
            "mkwrite_risk_look_duration_seconds", "Time that the last look at the mapped files took."
        )

        self.unseen = GaugeMetricFamily(
            "mkwrite_risk_unseen",
            "Kinds of things that the last look could not see, such as other users' processes; 0: it saw all.",
        )

    def __iter__(self) -> Iterator[Metric]:
        return iter(vars(self).values())


class RiskCollector(Collector):
    """Looks at the mapped files of the host when it is scraped, at most every ``every_s`` seconds.

    Scrapes in between get what the last look saw. A look that fails is logged, and its metrics are left out.
    """

    def __init__(self, look: Callable[[], Survey] = survey, every_s: float = 30.0) -> None:
        self._look = look
        self._every_ns = round(every_s * 1e9)
        self._lock = threading.Lock()
        self._seen: Survey | None = None
        self._coming: Forecasts = {}
        self._took_s = 0.0

    def verdicts(self) -> tuple[Assessment, ...]:
        """Return what the last look found; none before the first."""
        seen = self._seen
        return seen.verdicts if seen else ()

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples, so that registering takes no look."""
        return _Families()

    def seen(self) -> tuple[Survey, Forecasts]:
        """Return the last look, at most ``every_s`` old, and what is to come. Raises what keeps it from looking."""
        with self._lock:
            self._refresh()
            assert self._seen is not None
            return self._seen, self._coming

    def collect(self) -> Iterable[Metric]:
        """Return the metrics with samples: for each filesystem, of the limit that is nearest to refusing."""
        families = _Families()
        with self._lock:
            try:
                self._refresh()
            except Exception as error:
                _log.warning("The mapped files could not be looked at: %s", printable(str(error)))
                return families
            assert self._seen is not None
            for place, verdict in _nearest(self._seen.verdicts).items():
                values = _labels(place)
                families.unallocated.add_metric(values, verdict.new)
                families.available.add_metric(values, max(0, verdict.limit.free))
                families.refusal.add_metric(values, self._coming[verdict.limit.key][1])
            for place, beyond in _beyond(self._seen).items():
                families.beyond.add_metric(_labels(place), beyond)
            families.unseen.add_metric([], len(self._seen.unseen))
            families.duration.add_metric([], self._took_s)
        return families

    def _refresh(self) -> None:
        before = self._seen
        started = time.monotonic_ns()
        if before is not None and started - before.monotonic_ns < self._every_ns:
            return
        now = self._look()
        self._took_s = (time.monotonic_ns() - started) / 1e9
        elapsed_ns = now.monotonic_ns - before.monotonic_ns if before else 0
        self._coming = forecasts(before.verdicts if before else (), now.verdicts, elapsed_ns)
        self._seen = now


def _labels(place: LimitedFilesystem) -> tuple[str, str, str]:
    return printable(place.fstype), printable(place.mountpoint), device_name(place.dev)


def _beyond(seen: Survey) -> Counter[LimitedFilesystem]:
    """Bytes that are mapped beyond the end of files, by filesystem; 0 for the others."""
    found = Counter({demand.place: 0 for demand in seen.demands})
    for cut in seen.cut:
        found[cut.place] += cut.beyond
    return found


def _nearest(verdicts: Iterable[Assessment]) -> dict[LimitedFilesystem, Assessment]:
    """Return the verdict on each filesystem that is most dangerous; they come in that order."""
    nearest: dict[LimitedFilesystem, Assessment] = {}
    for verdict in verdicts:
        nearest.setdefault(verdict.limit.place, verdict)
    return nearest
