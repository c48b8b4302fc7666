"""The recorder's own metrics: how much it keeps, whether that is written, and what had to go."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tracer.record.recorder import Recorder

#: What has a sample from the start; other kinds have one once any was dropped.
_DROPPED = ("failure", "repeated", "told", "forgotten")


class RecordCollector(Collector):
    """Tells of one recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without samples."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """Every metric; what the writer has not told of yet has no sample."""
        up, size, last, lines, merged, dropped = families = self._families()
        feed, status = self._recorder.feed, self._recorder.writer.status
        up.add_metric([], int(not feed.broken and not status.get("errno")))
        if status.get("size") is not None:
            size.add_metric([], status["size"])
        if status:
            lines.add_metric([], status["written"])
            last.add_metric([], status["last_ns"] / 1e9)
        merged.add_metric([], feed.merged)
        for kind in sorted({*_DROPPED, *feed.dropped}):
            dropped.add_metric([kind], feed.dropped[kind])
        return families

    def _families(
        self,
    ) -> tuple[
        GaugeMetricFamily,
        GaugeMetricFamily,
        GaugeMetricFamily,
        CounterMetricFamily,
        CounterMetricFamily,
        CounterMetricFamily,
    ]:
        return (
            GaugeMetricFamily("mkwrite_record_up", "Whether the record can be written (1) or not (0)."),
            GaugeMetricFamily("mkwrite_record_size", "What the record takes on its disk.", unit="bytes"),
            GaugeMetricFamily(
                "mkwrite_record_last_write_timestamp", "When something was last written to it.", unit="seconds"
            ),
            CounterMetricFamily("mkwrite_record_lines", "Minutes, reports and gaps that were written."),
            CounterMetricFamily("mkwrite_record_merged_minutes", "Minutes that were written as one with another."),
            CounterMetricFamily(
                "mkwrite_record_dropped", "Reports and events that were lost, by kind.", labels=["kind"]
            ),
        )
