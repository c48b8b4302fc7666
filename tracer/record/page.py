"""A recorded time as one page of HTML: what was wrong first, then time lines, filesystems and the record itself.

It fetches nothing and runs nothing: it can be sent, kept and printed. Whatever traced programs, disks and another
host's record call things is escaped, and the content security policy lets nothing run even if it were not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tracer.export.http.heatmap import heat_map
from tracer.export.http.markup import Columns, card, escaped, moment, preformatted, section, table
from tracer.export.http.style import STYLE, policy
from tracer.latency.breakdown import CPU, Breakdown, breakdowns
from tracer.model.asked import asked
from tracer.model.calls import device_name
from tracer.model.histogram import Histogram
from tracer.record.charts import bars, lines
from tracer.record.collected import Collected, Incident, Left
from tracer.record.happened import happened
from tracer.text import count_text, counted, duration, size_text
from tracer.ui.sigbus import words
from tracer.ui.trace import event_file, waited_for

#: Incidents whose reports are open, and rows of a table.
_OPEN: Final = 10
_ROWS: Final = 30
_QUANTILES: Final = {"p50": 0.5, "p99": 0.99}
_STYLE: Final = (
    STYLE
    + """
:root{--k1:#0b62c4;--k2:#b35900;--k3:#1a7f37;--k4:#8250df;--k5:#a8154f;--k6:#0a7d8c;--k7:#6e5a00;--k8:#57606a}
@media(prefers-color-scheme:dark){:root{--k1:#6cb0ff;--k2:#f0a050;--k3:#56d364;--k4:#c6a0ff;--k5:#ff8fb3;
--k6:#56d4dd;--k7:#d6bf4a;--k8:#9aa4af}}
.k1{fill:var(--k1);background:var(--k1)}.k2{fill:var(--k2);background:var(--k2)}
.k3{fill:var(--k3);background:var(--k3)}.k4{fill:var(--k4);background:var(--k4)}
.k5{fill:var(--k5);background:var(--k5)}.k6{fill:var(--k6);background:var(--k6)}
.k7{fill:var(--k7);background:var(--k7)}.k8{fill:var(--k8);background:var(--k8)}
.line{background:none;fill:none;stroke-width:2;vector-effect:non-scaling-stroke}
.line.k1{stroke:var(--k1)}.line.k2{stroke:var(--k2)}.line.k3{stroke:var(--k3)}.unknown{fill:var(--line)}
.chart{display:grid;grid-template-columns:4.5rem minmax(0,1fr);gap:2px 6px;max-width:62rem}
.chart svg{width:100%;height:7rem;border:1px solid var(--line)}
.scale{display:flex;flex-direction:column;justify-content:space-between;text-align:right;font-size:12px;
color:var(--dim)}.legend{display:flex;flex-wrap:wrap;gap:.1rem 1.2rem;font-size:12.5px}
.legend i{display:inline-block;width:.7rem;height:.7rem;margin-right:.35rem}h3{font-size:.95rem;margin:1rem 0 .3rem}
@media print{body{max-width:none;margin:0}.card,tr,.chart{break-inside:avoid}nav{display:none}}
"""
)


def page(found: Collected, said: Sequence[str], version: str) -> str:
    """Return the document; ``said`` are sentences about the record: whose it is, and what it lacks."""
    writer = found.account.writers[-1] if found.account.writers else {}
    host = escaped(str(writer.get("host", "a host")))
    kernel, backend = escaped(str(writer.get("kernel", "?"))), escaped(str(writer.get("backend", "?")))
    since, until = moment(found.begins_ns), moment(found.ends_ns)
    main = "\n".join([
        _verdict(found),
        section("Failures", "failures", _failures(found)),
        *([section("Stuck", "stuck", _stuck(found))] if found.stuck else []),
        section("Time lines", "time", _time_lines(found)),
        *([section("Slow calls", "slow", _slow(found))] if found.slow else []),
        *([section("Calls of page_mkwrite", "calls", _calls(found))] if not found.is_blind else []),
        section("Filesystems", "space", _space(found)),
        section("What happened besides", "events", _events(found)),
        section("The record", "record", "".join(f"<p>{escaped(line)}</p>" for line in said)),
    ])  # fmt: skip
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escaped(policy(_STYLE))}">
<title>mkwrite: {host}, {since}</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>
<body><header><h1>What mkwrite recorded on {host}</h1>
<p>From {since} to {until}.</p>
<p class="dim">page_mkwrite on Linux {kernel}, {backend} backend; times are {moment(found.ends_ns, "%Z (UTC%z)")};
written by mkwrite {escaped(version)}</p></header>
<main>
{main}
</main></body></html>
"""


def _verdict(found: Collected) -> str:
    parts = [
        ("#failures", len(found.incidents), "kind of failure", "kinds of failures"),
        ("#stuck", len(found.stuck), "stuck call", "stuck calls"),
        ("#slow", len(found.slow), "slow call", "slow calls"),
    ]
    said = ", ".join(f'<a href="{at}">{counted(number, one, many)}</a>' for at, number, one, many in parts if number)
    return f'<p class="verdict bad">{said}</p>' if said else '<p class="verdict good">Nothing wrong was recorded.</p>'


def _failures(found: Collected) -> str:
    cards = "".join(_incident(number, one) for number, one in enumerate(found.incidents))
    if found.untold:
        cards += f'<p class="dim">{counted(found.untold, "failure")} more only counted.</p>'
    return cards or '<p class="good">None was recorded.</p>'


def _incident(number: int, one: Incident) -> str:
    failure, diagnosis = one.first.failure, one.first.diagnosis
    name = failure.file or (f"inode {failure.inode}" if failure.inode else failure.mountpoint)
    others = one.more.processes - 1 if one.more else 0
    who = f"{failure.process_comm or failure.comm}[{failure.pid}]" if failure.pid else ""
    title = (
        ("what", f"{diagnosis.kind.value} {diagnosis.errno}".rstrip()),
        ("times", f"{one.total} times" if one.total > 1 else ""),
        ("where", f"{name} (deleted)" if failure.deleted else name),
        ("who", f"{who} and {others} more" if others > 0 else who),
        ("when", moment(failure.time_ns)),
    )
    texts = [words(one.first), *map(words, one.news)]
    body = "".join(map(preformatted, texts))
    return card(f"f{number}", "bad", title, diagnosis.cause, body, is_open=number < _OPEN)


def _stuck(found: Collected) -> str:
    columns: Columns = [
        ("Seen", "", lambda row: moment(row[0])),
        ("For", "n", lambda row: f"{'more than ' if row[1].at_least else ''}{duration(row[1].call.age_ns)}"),
        ("Process", "", lambda row: f"{row[1].call.comm}[{row[1].call.pid}]"),
        ("Waits for", "", lambda row: row[1].reason),
        ("File", "text", lambda row: row[1].call.file or row[1].call.mountpoint or device_name(row[1].call.dev)),
    ]
    return table("stuck-calls", columns, found.stuck[:_ROWS], "") + _more(len(found.stuck))


def _time_lines(found: Collected) -> str:
    columns, moments = found.scale.columns(), found.moments()
    ends = [moments[at] for at in sorted({0, len(columns) // 2, len(columns)})] if columns else []
    failures = [{kind.value: float(n) for kind, n in one.failures.items()} if one else None for one in columns]
    lost = [{"lost": float(one.lost)} if one else None for one in columns]
    parts = [f'<p class="dim">A column is {counted(found.scale.minutes, "minute")}; grey: nothing is recorded.</p>']
    parts += ["<h3>Failures, by class</h3>", bars("t-failures", failures, count_text, moments)]
    if found.is_blind:
        parts.append('<p class="dim">not recorded: calls, latencies and waits, which no tracepoint tells.</p>')
    else:
        calls = [{"calls": float(one.latencies.count)} if one else None for one in columns]
        slow = [_latencies(one.latencies) if one else None for one in columns]
        waits = [dict(one.waited_ns) if one else None for one in columns]
        latencies = [one.latencies if one else Histogram() for one in columns]
        parts += ["<h3>Calls</h3>", bars("t-calls", calls, count_text, moments)]
        parts += ["<h3>Latency</h3>", lines("t-latency", slow, (*_QUANTILES, "max"), duration, moments)]
        if asked(found.total.waits):
            parts += ["<h3>Time waited, by reason</h3>", bars("t-waits", waits, duration, moments)]
        parts += ["<h3>Latency heat map</h3>", heat_map(latencies, moments, ends)]
    parts += ["<h3>What the tracer missed</h3>", bars("t-lost", lost, count_text, moments)]
    return "\n".join(parts)


def _latencies(one: Histogram) -> dict[str, float]:
    if not one.count:
        return {}
    return {**{name: one.quantile(q) for name, q in _QUANTILES.items()}, "max": float(one.max_ns)}


def _slow(found: Collected) -> str:
    columns: Columns = [
        ("Took", "n", lambda call: duration(call.took_ns)),
        ("When", "", lambda call: moment(call.time_ns)),
        ("Process", "", lambda call: f"{call.comm}[{call.pid}]"),
        ("File", "text", event_file),
        ("Waited for", "text", waited_for),
    ]
    return table("slow-calls", columns, found.slow[:_ROWS], "") + _more(len(found.slow))


def _calls(found: Collected) -> str:
    waited = {(one.dev, one.handler): one for one in breakdowns(found.total)}
    rows: dict[tuple[str, str, int, str], tuple[Histogram, int]] = {}
    for series, histogram in found.total.calls.items():
        key = (series.fstype, series.mountpoint, series.dev, series.handler)
        known, failed = rows.get(key, (Histogram(), 0))
        rows[key] = known + histogram, failed + (histogram.count if series.outcome.failed else 0)
    columns: Columns = [
        ("Filesystem", "", lambda row: row[0][0] or "?"),
        ("Mount point", "text", lambda row: row[0][1] or device_name(row[0][2])),
        ("Handler", "", lambda row: row[0][3]),
        ("Calls", "n", lambda row: count_text(row[1][0].count)),
        ("p50", "n", lambda row: duration(row[1][0].quantile(0.5))),
        ("p99", "n", lambda row: duration(row[1][0].quantile(0.99))),
        ("Max", "n", lambda row: duration(row[1][0].max_ns)),
        ("Failed", "n bad", lambda row: str(row[1][1]) if row[1][1] else ""),
        ("Waited for", "text", lambda row: _waits(waited.get(row[0][2:]))),
    ]
    ordered = sorted(rows.items(), key=lambda row: -row[1][0].sum_ns)
    return table("call-series", columns, ordered[:_ROWS], "No call was recorded.") + _more(len(ordered))


def _waits(one: Breakdown | None) -> str:
    parts = one.parts if one else ()
    return ", ".join(f"{part.name} {duration(part.ns)}" for part in parts if part.name != CPU and part.ns)


def _space(found: Collected) -> str:
    """Return what filesystems had left: a line each, and when it was least."""
    columns: Columns = [
        ("Filesystem", "", lambda left: left.place.fstype),
        ("Mount point", "text", lambda left: left.place.mountpoint),
        ("Size", "n", lambda left: size_text(left.last.total)),
        ("Free at first", "n", lambda left: size_text(left.first.free)),
        ("Free at the end", "n", lambda left: size_text(left.last.free)),
        ("Least free", "n", lambda left: size_text(left.least.free)),
        ("When", "", lambda left: moment(left.least_ns)),
    ]
    ordered = sorted(found.left.values(), key=_filled, reverse=True)
    none = "Not recorded: what filesystems had left."
    return table("filesystems", columns, ordered[:_ROWS], none) + _more(len(ordered))


def _filled(left: Left) -> float:
    return 1 - left.least.free / left.least.total if left.least.total else 0.0


def _events(found: Collected) -> str:
    """Return starts and ends, freezes, mounts and steps of the clock."""
    told = [str(line) for line in happened(found.events)]
    if found.more_events:
        told.append(f"and {found.more_events} more")
    return preformatted("\n".join(told)) if told else '<p class="dim">Nothing was recorded.</p>'


def _more(rows: int) -> str:
    return f'<p class="dim">and {rows - _ROWS} more.</p>' if rows > _ROWS else ""
