"""The landing page: what goes on, for a person with a browser and nothing else.

One document without scripts and without anything to fetch; it loads itself anew. Whatever traced programs and
mounted disks call things is escaped, and the content security policy lets nothing run even if it were not.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from tracer.export.http.heatmap import heat_map
from tracer.export.http.history import View
from tracer.export.http.style import STYLE
from tracer.latency.breakdown import CPU, breakdowns
from tracer.model.asked import asked
from tracer.model.calls import Outcome, Series, device_name
from tracer.model.failures import Failure, FailureSource
from tracer.model.histogram import Histogram
from tracer.model.losses import MEANINGS
from tracer.model.snapshot import Snapshot, Tracepoints
from tracer.model.waits import Wait, WaitSeries
from tracer.text import count_text, duration, offset_text, printable

#: How often the page loads itself anew.
REFRESH_S: Final = 10
#: Rows of the tables of calls and of waits: the busiest.
_ROWS: Final = 50


def page(view: View, version: str) -> str:
    """Return the document."""
    main = "\n".join([
        _status(view),
        *_section("Calls of page_mkwrite", _calls(view)),
        *_section("Latency over the last hour", heat_map(view.minutes)),
        *(_section("What calls wait for", _waits(view)) if asked(view.total.waits) else ()),
        *_section("Recent failures", _failures(view.failures)),
        *_section("Write-protection faults", _wp_faults(view)),
        *_section("The tracer itself", _hooks(view.total) + _losses(view.total) + _notes(view.total)),
    ])  # fmt: skip
    host, kernel = _text(os.uname().nodename), _text(os.uname().release)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>mkwrite on {host}</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="refresh" content="{REFRESH_S}"><style>{STYLE}</style></head>
<body><header><h1>mkwrite</h1>
<p class="dim">page_mkwrite on {host}, Linux {kernel}; mkwrite {_text(version)}</p>
<nav><a href="/metrics">metrics</a><a href="/-/healthy">healthy</a><a href="/-/ready">ready</a></nav></header>
<main>
{main}
</main></body></html>
"""


def _tracepoints(found: Tracepoints) -> str:
    faults = ", ".join(f"{count_text(number)} {mode.value}" for mode, number in found.wp_faults.items())
    paused = "; ".join(
        f"{_text(bdi)}: {count_text(one.pauses)} pauses, {duration(one.pause_ns)}"
        for bdi, one in sorted(found.throttled.items())
    )
    return f"<p>{faults}; {found.sigbus} SIGBUS; dirty throttling: {paused or 'none'}.</p>"


def _status(view: View) -> str:
    if not view.up:
        return '<p class="bad">The counts cannot be read; what follows is from the last time that they could.</p>'
    lost = view.total.total_lost
    oldest = f", the oldest for {duration(view.total.oldest_in_flight_ns)}" if view.total.in_flight else ""
    return (
        f"<p>Tracing for {duration(view.total.elapsed_ns)}; {view.total.in_flight} calls in flight{oldest}; "
        + (f'<span class="bad">lost: {lost}</span>' if lost else '<span class="good">lost: 0</span>')
        + f'; <span class="dim">as of {_moment(datetime.now())}</span></p>'
    )


def _calls(view: View) -> str:
    def source(series: Series) -> Series:
        return replace(series, outcome=Outcome.WRITABLE, initiator=series.initiator.USER, generation=0)

    now, failed = view.recent.grouped(source), _failed(view.total).grouped(source)
    rows = [(series, now.get(series, Histogram()), total) for series, total in view.total.grouped(source).items()]
    rows.sort(key=lambda row: (-row[1].count, -row[2].count, row[0]))
    seconds = view.recent.elapsed_ns / 1e9 or 1.0
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
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
    title = f'<p class="dim">Rates and percentiles of the last {duration(view.recent.elapsed_ns)}.</p>'
    return title + _table("calls", columns, rows[:_ROWS], "No call yet.") + more


def _waits(view: View) -> str:
    now = {series: time.ns for series, time in view.recent.by_name().waits.items()}
    rows = [
        (one, part, now.get(WaitSeries(one.fstype, one.mountpoint, one.dev, one.handler, Wait(part.name)), 0))
        for one in breakdowns(view.total)
        for part in one.parts
        if part.name != CPU
    ]
    rows.sort(key=lambda row: (-row[2], -row[1].ns))
    seconds = view.recent.elapsed_ns / 1e9 or 1.0
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
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
    return _table("waits", columns, rows[:_ROWS], "No call has waited yet.") + more


def _failures(events: Sequence[Failure]) -> str:
    columns: list[tuple[str, str, Callable[[Failure], str]]] = [
        (
            "Time",
            "when",
            lambda event: f"{datetime.fromtimestamp(event.time_ns // 10**9).astimezone():%Y-%m-%d %H:%M:%S}",
        ),
        ("Process", "", lambda event: f"{event.comm}[{event.pid}]" if event.pid else "-"),
        ("Class", "bad", lambda event: event.verdict.kind.value),
        ("Errno", "bad", lambda event: event.verdict.errno),
        ("Returned by", "", lambda event: event.errno_from or _inferred(event)),
        ("Filesystem", "", lambda event: event.fstype),
        ("Mount point", "text", lambda event: event.mountpoint),
        ("File", "text", lambda event: _file(event)),
        ("Offset", "n", lambda event: "-" if event.source is FailureSource.WRITEBACK else offset_text(event.offset)),
    ]
    return _table("failures", columns, events, "None.")


def _inferred(failure: Failure) -> str:
    return "inferred" if failure.verdict.errno else ""


def _file(failure: Failure) -> str:
    name = failure.file or (f"inode {failure.inode}" if failure.inode else "")
    return f"{name} (deleted)" if failure.deleted else name


def _wp_faults(view: View) -> str:
    if view.total.tracepoints:
        return _tracepoints(view.total.tracepoints)
    seconds = view.recent.elapsed_ns / 1e9 or 1.0
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
        ("Outcome", "", lambda item: item[0].value),
        ("Faults/s", "n", lambda item: count_text(view.recent.wp_faults[item[0]] / seconds)),
        ("Faults", "n", lambda item: count_text(item[1])),
    ]
    return _table("wp-faults", columns, list(view.total.wp_faults.items()), "None.")


def _hooks(snapshot: Snapshot) -> str:
    attached = sum(hook.attached for hook in snapshot.hooks)
    said = f"<p>{attached} of {len(snapshot.hooks)} hooks are attached.</p>"
    missing = [hook for hook in snapshot.hooks if not hook.attached]
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
        ("Hook", "", lambda hook: hook.name),
        ("Function", "", lambda hook: hook.function),
        ("Backend", "", lambda hook: hook.backend.value),
        ("Not attached", "text", lambda hook: hook.detail),
    ]
    return said + (_table("hooks", columns, missing, "") if missing else "")


def _losses(snapshot: Snapshot) -> str:
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
        ("Lost", "", lambda item: item[0].value),
        ("Number", "n", lambda item: str(item[1])),
        ("What was missed", "text", lambda item: MEANINGS[item[0]].missed),
        ("What to do", "text", lambda item: MEANINGS[item[0]].remedy),
    ]
    return _table("losses", columns, [item for item in snapshot.lost.items() if item[1]], "Nothing was lost.")


def _notes(snapshot: Snapshot) -> str:
    return "".join(f'<p class="dim">{_text(note)}</p>' for note in snapshot.notes)


def _failed(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, calls={s: h for s, h in snapshot.calls.items() if s.outcome.failed})


def _quantile(histogram: Histogram, q: float) -> str:
    return duration(histogram.quantile(q)) if histogram.count else "-"


def _section(title: str, content: str) -> Iterable[str]:
    return f"<section><h2>{title}</h2>", content, "</section>"


def _table(name: str, columns: Sequence[tuple[str, str, Callable[[Any], str]]], rows: Sequence[Any], none: str) -> str:
    """``columns`` are title, class and text of a cell; ``none`` is said instead of a table without rows."""
    if not rows:
        return f'<p id="{name}" class="dim">{none}</p>'
    titles = "".join(f'<th scope="col" class="{kind}">{title}</th>' for title, kind, _ in columns)
    body = "".join(
        "<tr>" + "".join(f'<td class="{kind}">{_text(cell(row))}</td>' for _, kind, cell in columns) + "</tr>\n"
        for row in rows
    )
    return f'<div class="wide"><table id="{name}"><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _moment(local: datetime) -> str:
    return f"{local.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _text(raw: str) -> str:
    return html.escape(printable(raw))
