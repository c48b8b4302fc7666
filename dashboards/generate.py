#!/usr/bin/env python3
"""The three dashboards: the fleet, one host, one filesystem. Run it to write the JSON files beside it anew."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dashboards.grafana import Dashboard, Panel, Row, number, values

FLEET: Final = 'cluster=~"$cluster", job=~"$job"'
HOST: Final = 'cluster=~"$cluster", job=~"$job", instance=~"${instance:regex}"'
ONE: Final = f'{HOST}, mountpoint=~"${{mountpoint:regex}}"'
_RATE: Final = "[$__rate_interval]"
_REFUSED: Final = 'class!~"writeback.*"'


def top(rule: str) -> str:
    """Return a query for the largest series of a recording rule."""
    return f"topk($top, {rule}{{{FLEET}}})"


def in_range(rule: str) -> str:
    """Return how often it happened in the time that is shown, by the rate that was recorded."""
    return f"avg_over_time({rule}{{{FLEET}}}[$__range]) * $__range_s"


_FLEET_ROWS: Final = (
    Row("What is wrong", (
        Panel("stat", "Hosts traced", "Exporters that read their counts.", "short",
              ((f"sum(instance:mkwrite_up:min{{{FLEET}}})", ""),), 5, 4),
        Panel("stat", "Hosts not traced", "Exporters that answer and cannot read their counts.", "short",
              ((f"count(instance:mkwrite_up:min{{{FLEET}}}) - sum(instance:mkwrite_up:min{{{FLEET}}})", ""),), 5, 4,
              runbook="MkwriteDown"),
        Panel("stat", "Failures", "Refused and lost writes, and SIGBUS, in the time that is shown.", "short",
              ((f"sum({in_range('instance:mkwrite_failures:rate5m')})", ""),), 5, 4, runbook="MkwriteWriteRefused"),
        Panel("stat", "Oldest call", "The call that has lasted longest, of all hosts.", "s",
              ((f"max(instance:mkwrite_oldest_inflight_seconds:max{{{FLEET}}})", ""),), 5, 4,
              runbook="MkwriteCallsStuck"),
        Panel("stat", "99th percentile", "Of the latency of all calls.", "s",
              ((f"histogram_quantile(0.99, sum by (le) (cluster_le:mkwrite_call_latency_seconds_bucket:rate5m"
                f"{{{FLEET}}}))", ""),), 4, 4),
        Panel("table", "Hosts by failures", "In the time that is shown, the most first.", "short",
              ((f"topk($top, {in_range('instance:mkwrite_failures:rate5m')})", ""),), 10, 9, "host",
              "MkwriteWriteRefused", "Failures"),
        Panel("table", "Filesystems by failures", "By class and errno, in the time that is shown.", "short",
              ((f"topk($top, {in_range('instance_mountpoint_class_errno:mkwrite_failures:rate5m')})", ""),), 14, 9,
              "filesystem", "MkwriteWriteRefused", "Failures"),
        Panel("timeseries", "Failures by class and errno", "In five minutes.", "short",
              ((f"sum by (class, errno) (cluster_class_errno:mkwrite_failures:rate5m{{{FLEET}}}) * 300",
                "{{class}} {{errno}}"),)),
        Panel("timeseries", "Failures of the worst hosts", "In five minutes.", "short",
              ((f"topk($top, instance:mkwrite_failures:rate5m{{{FLEET}}} * 300)", "{{cluster}} {{instance}}"),),
              to="host", runbook="MkwriteWriteRefused"),
    )),
    Row("Stalls", (
        Panel("timeseries", "Oldest call of the worst hosts", "How long the oldest call in flight has lasted.", "s",
              ((top("instance:mkwrite_oldest_inflight_seconds:max"), "{{cluster}} {{instance}}"),), to="host",
              runbook="MkwriteCallsStuck"),
        Panel("timeseries", "99th percentile of the slowest filesystems", "Of the latency of calls.", "s",
              ((top("instance_mountpoint:mkwrite_call_latency_seconds:p99_5m"),
                "{{cluster}} {{instance}} {{mountpoint}}"),), to="filesystem", runbook="MkwriteCallsSlow"),
        Panel("timeseries", "Tasks that wait, by reason", "How many wait at a time, on all hosts.", "short",
              ((f"sum by (reason) (cluster_reason:mkwrite_wait_seconds:rate5m{{{FLEET}}})", "{{reason}}"),),
              runbook="MkwriteTasksWait"),
        Panel("heatmap", "Latency heat map", "Calls a second by the time that the handler took, of all hosts.", "s",
              ((f"sum by (le) (cluster_le:mkwrite_call_latency_seconds_bucket:rate5m{{{FLEET}}})", "{{le}}"),)),
        Panel("timeseries", "Calls of the busiest hosts", "Calls of page_mkwrite a second.", "ops",
              ((top("instance:mkwrite_calls:rate5m"), "{{cluster}} {{instance}}"),), to="host"),
        Panel("timeseries", "Dirtied through mappings", "Of the filesystems where most is.", "binBps",
              ((top("instance_mountpoint:mkwrite_dirtied_bytes:rate5m"), "{{cluster}} {{instance}} {{mountpoint}}"),),
              to="filesystem"),
    )),
    Row("Before it happens (export --risk)", (
        Panel("table", "Refused soonest", "Time until a write is refused at the present rate.", "s",
              ((f"bottomk($top, instance_mountpoint:mkwrite_risk_time_to_refusal_seconds:min{{{FLEET}}})", ""),),
              to="filesystem", runbook="MkwriteRefusalNear", value="Refused in"),
        Panel("table", "Most is missing", "What mapped files may ask for beyond what is left.", "bytes",
              ((top("instance_mountpoint:mkwrite_risk_missing_bytes:max"), ""),), to="filesystem",
              runbook="MkwriteFilesExceedSpace", value="Missing"),
    )),
    Row("The tracer", (
        Panel("timeseries", "Losses of the tracer", "What it missed a second, by kind, where it missed most.", "ops",
              ((top("instance_kind:mkwrite_lost:rate5m"), "{{cluster}} {{instance}} {{kind}}"),), to="host",
              runbook="MkwriteLosingData"),
        Panel("table", "Versions", "Hosts by version, backend and kernel.", "short",
              ((f"sum by (cluster, version, backend, kernel) (cluster_version_backend_kernel:mkwrite_build_info:count"
                f"{{{FLEET}}})", ""),), value="Hosts"),
    )),
    Row("Tracepoint backend", (
        Panel("timeseries", "SIGBUS", "Signals in five minutes, where most were.", "short",
              ((f"topk($top, instance:mkwrite_sigbus:rate5m{{{FLEET}}} * 300)", "{{cluster}} {{instance}}"),),
              to="host", runbook="MkwriteWriteRefused"),
        Panel("timeseries", "Throttled tasks", "How many are paused at a time since too much is dirty.", "short",
              ((top("instance:mkwrite_throttle_seconds:rate5m"), "{{cluster}} {{instance}}"),), to="host",
              runbook="MkwriteTasksWait"),
    )),
)  # fmt: skip


def _percentiles(where: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (
            f"histogram_quantile({q}, sum by (le) (rate(mkwrite_call_latency_seconds_bucket{{{where}}}{_RATE})))",
            f"p{name}",
        )
        for q, name in ((0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"))
    )


def _calls(where: str, to: str) -> Row:
    """Return what goes on, on a host or on a filesystem of it."""
    return Row("Calls", (
        Panel("timeseries", "Calls by mount point", "Calls of page_mkwrite a second.", "ops",
              ((f"sum by (cluster, job, instance, mountpoint) (rate(mkwrite_calls_total{{{where}}}{_RATE}))",
                "{{mountpoint}}"),), to=to),
        Panel("timeseries", "Calls by outcome", "What came of them.", "ops",
              ((f"sum by (outcome) (rate(mkwrite_calls_total{{{where}}}{_RATE}))", "{{outcome}}"),)),
        Panel("timeseries", "Calls by path and initiator", "How the fault came, and who wrote.", "ops",
              ((f"sum by (path, initiator) (rate(mkwrite_calls_total{{{where}}}{_RATE}))", "{{path}} {{initiator}}"),)),
        Panel("timeseries", "Percentiles", "Of the latency of calls.", "s", _percentiles(where),
              runbook="MkwriteCallsSlow"),
        Panel("heatmap", "Latency heat map", "Calls by the time that the handler took.", "s",
              ((f"sum by (le) (increase(mkwrite_call_latency_seconds_bucket{{{where}}}{_RATE}))", "{{le}}"),)),
        Panel("timeseries", "Mean latency by handler", "Time a call took, on average.", "s",
              ((f"sum by (handler) (rate(mkwrite_call_latency_seconds_sum{{{where}}}{_RATE})) / "
                f"sum by (handler) (rate(mkwrite_call_latency_seconds_count{{{where}}}{_RATE}))", "{{handler}}"),)),
        Panel("timeseries", "Tasks that wait, by reason", "How many wait at a time.", "short",
              ((f"sum by (reason) (rate(mkwrite_wait_seconds_total{{{where}}}{_RATE}))", "{{reason}}"),),
              runbook="MkwriteTasksWait"),
        Panel("timeseries", "Dirtied through mappings", "Bytes of pages that calls made writable.", "binBps",
              ((f"sum by (mountpoint) (rate(mkwrite_dirtied_bytes_total{{{where}}}{_RATE}))", "{{mountpoint}}"),)),
    ))  # fmt: skip


def _failures(where: str, to: str) -> Row:
    by = "cluster, job, instance, fstype, mountpoint, class, errno"
    return Row("Failures", (
        Panel("timeseries", "Writes refused", "Refused faults and SIGBUS, by class and errno.", "short",
              ((f"sum by (mountpoint, class, errno) (increase(mkwrite_failures_total{{{where}, {_REFUSED}}}{_RATE}))",
                "{{mountpoint}} {{class}} {{errno}}"),), runbook="MkwriteWriteRefused"),
        Panel("table", "Where writes were refused", "In the time that is shown, the most first.", "short",
              ((f"sort_desc(sum by ({by}) (increase(mkwrite_failures_total{{{where}, {_REFUSED}}}[$__range])) > 0)",
                ""),), to=to, runbook="MkwriteWriteRefused", value="Failures"),
        Panel("timeseries", "Writes lost at writeback", "Accepted, then lost: only msync and fsync tell.", "short",
              ((f'sum by (mountpoint, errno) (increase(mkwrite_failures_total{{{where}, class="writeback"}}{_RATE}))',
                "{{mountpoint}} {{errno}}"),), runbook="MkwriteWriteLost"),
        Panel("timeseries", "Time until a write is refused", "At the present rate; needs export --risk.", "s",
              ((f"min by (mountpoint) (mkwrite_risk_time_to_refusal_seconds{{{where}}})", "{{mountpoint}}"),),
              runbook="MkwriteRefusalNear"),
        Panel("timeseries", "What mapped files may ask for, and what is left", "Needs export --risk.", "bytes",
              ((f"sum by (mountpoint) (mkwrite_risk_unallocated_bytes{{{where}}})", "{{mountpoint}} asked"),
               (f"sum by (mountpoint) (mkwrite_risk_available_bytes{{{where}}})", "{{mountpoint}} left")),
              runbook="MkwriteFilesExceedSpace"),
        Panel("timeseries", "Mapped beyond the end of files", "A touch there is a SIGBUS; needs --risk.", "bytes",
              ((f"sum by (mountpoint) (mkwrite_risk_beyond_end_bytes{{{where}}})", "{{mountpoint}}"),),
              runbook="MkwriteMappedBeyondEnd"),
    ))  # fmt: skip


_TRACER: Final = Row("The tracer", (
    Panel("timeseries", "Oldest call in flight", "How long it has lasted.", "s",
          ((f"max(mkwrite_oldest_inflight_seconds{{{HOST}}})", "oldest"),), runbook="MkwriteCallsStuck"),
    Panel("timeseries", "Write-protection faults", "Of the whole host, by what came of them.", "ops",
          ((f"sum by (outcome) (rate(mkwrite_wp_faults_total{{{HOST}}}{_RATE}))", "{{outcome}}"),)),
    Panel("timeseries", "Lost", "What the tracer missed.", "ops",
          ((f"sum by (kind) (rate(mkwrite_lost_total{{{HOST}}}{_RATE}))", "{{kind}}"),), 8, 7,
          runbook="MkwriteLosingData"),
    Panel("timeseries", "Hooks attached", "Those that are, and those that are not.", "short",
          ((f"sum(mkwrite_hooks_attached{{{HOST}}})", "attached"),
           (f"count(mkwrite_hook_attached{{{HOST}}} == 0) or 0 * sum(mkwrite_hooks_attached{{{HOST}}})", "missing")),
          8, 7, runbook="MkwriteHookMissing"),
    Panel("timeseries", "Scrape duration", "Time that a scrape takes.", "s",
          ((f"max(mkwrite_scrape_duration_seconds{{{HOST}}})", "scrape"),), 8, 7),
    Panel("timeseries", "CPU of the exporter", "Share of one CPU.", "percentunit",
          ((f"sum(rate(process_cpu_seconds_total{{{HOST}}}{_RATE}))", "CPU"),), 8, 7),
    Panel("timeseries", "Memory of the exporter", "Resident.", "bytes",
          ((f"max(process_resident_memory_bytes{{{HOST}}})", "resident"),), 8, 7),
    Panel("timeseries", "Sources without series of their own", "Counted together as other.", "short",
          ((f"max(mkwrite_series_dropped{{{HOST}}})", "sources"),), 8, 7, runbook="MkwriteSeriesDropped"),
    Panel("table", "Version", "What runs there.", "short",
          ((f"count by (version, backend, kernel) (mkwrite_build_info{{{HOST}}})", ""),), 24, 4),
))  # fmt: skip

_TRACEPOINTS: Final = Row("Tracepoint backend", (
    Panel("timeseries", "SIGBUS", "Signals that a task's own fault caused.", "short",
          ((f"sum(increase(mkwrite_sigbus_total{{{HOST}}}{_RATE}))", "SIGBUS"),), runbook="MkwriteWriteRefused"),
    Panel("timeseries", "Write-protect faults", "As the processor reports them, by mode.", "ops",
          ((f"sum by (mode) (rate(mkwrite_protection_faults_total{{{HOST}}}{_RATE}))", "{{mode}}"),)),
    Panel("timeseries", "Throttled tasks", "How many are paused at a time, by device.", "short",
          ((f"sum by (bdi) (rate(mkwrite_throttle_seconds_total{{{HOST}}}{_RATE}))", "{{bdi}}"),),
          runbook="MkwriteTasksWait"),
    Panel("timeseries", "Dirtied by throttled tasks", "By device.", "binBps",
          ((f"sum by (bdi) (rate(mkwrite_throttle_dirtied_bytes_total{{{HOST}}}{_RATE}))", "{{bdi}}"),)),
))  # fmt: skip

_CLUSTER: Final = values("cluster", "Cluster", "mkwrite_up", none=True)
_JOB: Final = values("job", "Job", 'mkwrite_up{cluster=~"$cluster"}')
_INSTANCE: Final = values("instance", "Host", f"mkwrite_up{{{FLEET}}}", one=True)


def _refusals(where: str) -> tuple[str, str, str]:
    expression = f"sum by (mountpoint) (increase(mkwrite_failures_total{{{where}, {_REFUSED}}}{_RATE})) > 0"
    return "Writes refused", expression, "{{mountpoint}}"


_PAGE: Final = ("Landing page of the host", "http://${instance}/")

DASHBOARDS: Final = (
    Dashboard(
        "mkwrite-fleet", "mkwrite: fleet", "The hosts and filesystems that are worst off, of however many.",
        (_CLUSTER, _JOB, number("top", "Show the first", 10, 5, 20, 50)), _FLEET_ROWS,
        links=(("Runbooks", "${runbooks}"),),
    ),
    Dashboard(
        "mkwrite-host", "mkwrite: host", "Writes to shared file mappings of one host.", (_CLUSTER, _JOB, _INSTANCE),
        (_failures(HOST, "filesystem"), _calls(HOST, "filesystem"), _TRACEPOINTS, _TRACER), (_refusals(HOST),),
        (_PAGE, ("Runbooks", "${runbooks}")),
    ),
    Dashboard(
        "mkwrite-filesystem", "mkwrite: filesystem", "Writes to shared file mappings of one filesystem of a host.",
        (_CLUSTER, _JOB, _INSTANCE,
         values("mountpoint", "Mount point", f"mkwrite_failures_total{{{HOST}}}", one=True)),
        (_failures(ONE, ""), _calls(ONE, "")), (_refusals(ONE),), (_PAGE, ("Runbooks", "${runbooks}")),
    ),
)  # fmt: skip


def written(dashboard: Dashboard) -> str:
    """Return the file's text."""
    return json.dumps(dashboard.json(), indent=1) + "\n"


def main() -> None:
    """Write the files."""
    for dashboard in DASHBOARDS:
        Path(__file__).with_name(f"{dashboard.uid}.json").write_text(written(dashboard))


if __name__ == "__main__":
    main()
