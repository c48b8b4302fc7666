"""What the landing page counts: calls, waits, write-protection faults, and the tracer's own state."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tracer.export.http.history import Past
from tracer.export.http.markup import Columns, escaped, table
from tracer.latency.breakdown import CPU, breakdowns
from tracer.model.calls import Outcome, Series, device_name
from tracer.model.histogram import Histogram
from tracer.model.losses import MEANINGS
from tracer.model.snapshot import Snapshot, Tracepoints
from tracer.model.waits import Wait, WaitSeries
from tracer.text import count_text, duration

#: Rows of the tables of calls and of waits: the busiest.
_ROWS: Final = 50


def calls(past: Past) -> str:
    """Return the busiest kinds of calls, with rates and percentiles of the last seconds."""

    def source(series: Series) -> Series:
        return replace(series, outcome=Outcome.WRITABLE, initiator=series.initiator.USER, generation=0)

    now, failed = past.recent.grouped(source), _failed(past.total).grouped(source)
    rows = [(series, now.get(series, Histogram()), total) for series, total in past.total.grouped(source).items()]
    rows.sort(key=lambda row: (-row[1].count, -row[2].count, row[0]))
    seconds = past.recent.elapsed_ns / 1e9 or 1.0
    columns: Columns = [
        ("Filesystem", "", lambda row: row[0].fstype or "?"),
        ("Mount point", "text", lambda row: row[0].mountpoint or device_name(row[0].dev)),
        ("Handler", "", lambda row: row[0].handler),
        ("Path", "", lambda row: row[0].path.value),
        ("Calls/s", "n", lambda row: count_text(row[1].count / seconds)),
        ("p50", "n", lambda row: _quantile(row[1], 0.5)),
        ("p99", "n", lambda row: _quantile(row[1], 0.99)),
        ("Max", "n", lambda row: duration(row[1].max_ns) if row[1].count else "-"),
        ("Calls", "n", lambda row: count_text(row[2].count)),
        ("Max ever", "n", lambda row: duration(row[2].max_ns)),
        ("Failed", "n bad", lambda row: str(failed[row[0]].count) if row[0] in failed else ""),
    ]
    if any(series.who for series, _, _ in rows):
        columns.insert(2, ("Who", "text", lambda row: row[0].who))
    more = f'<p class="dim">and {len(rows) - _ROWS} more.</p>' if len(rows) > _ROWS else ""
    title = f'<p class="dim">Rates and percentiles of the last {duration(past.recent.elapsed_ns)}.</p>'
    return title + table("calls", columns, rows[:_ROWS], "No call yet.") + more


def waits(past: Past) -> str:
    """Return what calls wait for, the longest first."""
    now = {series: time.ns for series, time in past.recent.by_name().waits.items()}
    rows = [
        (one, part, now.get(WaitSeries(one.fstype, one.mountpoint, one.dev, one.handler, Wait(part.name)), 0))
        for one in breakdowns(past.total)
        for part in one.parts
        if part.name != CPU
    ]
    rows.sort(key=lambda row: (-row[2], -row[1].ns))
    seconds = past.recent.elapsed_ns / 1e9 or 1.0
    columns: Columns = [
        ("Filesystem", "", lambda row: row[0].fstype or "?"),
        ("Mount point", "text", lambda row: row[0].mountpoint or device_name(row[0].dev)),
        ("Handler", "", lambda row: row[0].handler),
        ("Reason", "", lambda row: row[1].name),
        ("Waited/s", "n", lambda row: duration(round(row[2] / seconds))),
        ("Waits", "n", lambda row: count_text(row[1].count)),
        ("Waited", "n", lambda row: duration(row[1].ns)),
        ("Of the time", "n", lambda row: f"{row[1].ns / (row[0].ns or 1):.0%}"),
        ("Max ever", "n", lambda row: duration(row[1].max_ns)),
    ]
    more = f'<p class="dim">and {len(rows) - _ROWS} more.</p>' if len(rows) > _ROWS else ""
    return table("waits", columns, rows[:_ROWS], "No call has waited yet.") + more


def wp_faults(past: Past) -> str:
    """Return what came of the host's write-protection faults."""
    if past.total.tracepoints:
        return _tracepoints(past.total.tracepoints)
    seconds = past.recent.elapsed_ns / 1e9 or 1.0
    columns: Columns = [
        ("Outcome", "", lambda item: item[0].value),
        ("Faults/s", "n", lambda item: count_text(past.recent.wp_faults[item[0]] / seconds)),
        ("Faults", "n", lambda item: count_text(item[1])),
    ]
    return table("wp-faults", columns, list(past.total.wp_faults.items()), "None.")


def _tracepoints(found: Tracepoints) -> str:
    faults = ", ".join(f"{count_text(number)} {mode.value}" for mode, number in found.wp_faults.items())
    paused = "; ".join(
        f"{escaped(bdi)}: {count_text(one.pauses)} pauses, {duration(one.pause_ns)}"
        for bdi, one in sorted(found.throttled.items())
    )
    return f"<p>{faults}; {found.sigbus} SIGBUS; dirty throttling: {paused or 'none'}.</p>"


def tracer_state(snapshot: Snapshot) -> str:
    """Return hooks that are missing, what was lost, and what this kernel does not show."""
    return _hooks(snapshot) + _losses(snapshot) + _notes(snapshot)


def _hooks(snapshot: Snapshot) -> str:
    attached = sum(hook.attached for hook in snapshot.hooks)
    said = f"<p>{attached} of {len(snapshot.hooks)} hooks are attached.</p>"
    missing = [hook for hook in snapshot.hooks if not hook.attached]
    columns: Columns = [
        ("Hook", "", lambda hook: hook.name),
        ("Function", "", lambda hook: hook.function),
        ("Backend", "", lambda hook: hook.backend.value),
        ("Not attached", "text", lambda hook: hook.detail),
    ]
    return said + (table("hooks", columns, missing, "") if missing else "")


def _losses(snapshot: Snapshot) -> str:
    columns: Columns = [
        ("Lost", "", lambda item: item[0].value),
        ("Number", "n", lambda item: str(item[1])),
        ("What was missed", "text", lambda item: MEANINGS[item[0]].missed),
        ("What to do", "text", lambda item: MEANINGS[item[0]].remedy),
    ]
    return table("losses", columns, [item for item in snapshot.lost.items() if item[1]], "Nothing was lost.")


def _notes(snapshot: Snapshot) -> str:
    return "".join(f'<p class="dim">{escaped(note)}</p>' for note in snapshot.notes)


def _failed(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, calls={s: h for s, h in snapshot.calls.items() if s.outcome.failed})


def _quantile(histogram: Histogram, q: float) -> str:
    return duration(histogram.quantile(q)) if histogram.count else "-"
