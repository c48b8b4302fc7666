"""The landing page: what is wrong, and what goes on, for a person with a browser and nothing else.

One document without scripts and without anything to fetch. Whatever traced programs and mounted disks call things is
escaped, and the content security policy lets nothing run even if it were not.
"""

from __future__ import annotations

import os
import time
from typing import Final

from tracer.export.http import wrong
from tracer.export.http.counts import calls, tracer_state, waits, wp_faults
from tracer.export.http.heatmap import heat_map
from tracer.export.http.history import MINUTES, Past
from tracer.export.http.markup import escaped, moment, section
from tracer.export.http.style import STYLE
from tracer.export.http.view import View
from tracer.export.http.wrong import Words
from tracer.model.asked import asked
from tracer.text import counted, duration

_NO_CALLS: Final = "Calls, what they wait for and how long they take: the tracepoint backend does not see them."
_AGO: Final = [f"{ago} min ago" for ago in range(MINUTES - 1, -1, -1)]
_ENDS: Final = [*(f"-{ago} min" for ago in range(MINUTES, 0, -20)), "now"]
_LINKS: Final = "".join(
    f'<a href="{path}">{title}</a>'
    for title, path in {
        "live": "/",
        "still": "/?still",
        "metrics": "/metrics",
        "failures": "/api/failures",
        "stuck": "/api/stuck",
        "risk": "/api/risk",
        "calls": "/api/calls",
    }.items()
)


def page(view: View, version: str, words: Words) -> str:
    """Return the document; ``words`` writes a report."""
    past = view.past
    main = "\n".join([
        _verdict(view),
        _status(past),
        section("Failures", "failures", wrong.failures(view, words)),
        section("Stuck now", "stuck", wrong.stuck(view)),
        section("At risk", "risk", wrong.risk(view)),
        *_traced(past),
        section("Write-protection faults", "faults", wp_faults(past)),
        section("The tracer itself", "tracer", tracer_state(past.total)),
    ])  # fmt: skip
    host, kernel = escaped(os.uname().nodename), escaped(os.uname().release)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>mkwrite on {host}</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>
<body><header><h1>mkwrite on {host}</h1>
<p class="dim">page_mkwrite on Linux {kernel}; mkwrite {escaped(version)}; as of {moment(time.time_ns())}</p>
<nav>{_LINKS}</nav></header>
<main>
{main}
</main></body></html>
"""


def _verdict(view: View) -> str:
    """Return what is wrong in one line."""
    if not view.past.up:
        return (
            '<p class="verdict bad">The counts cannot be read; what follows is from the last time that they could.</p>'
        )
    survey = view.risk[0] if view.risk else None
    at_risk = len(wrong.near_limits(view)) + len(survey.cut if survey else ())
    found = [
        ("#failures", len(view.groups) or view.untold, "kind of failure", "kinds of failures"),
        ("#stuck", len(view.stuck), "call stuck", "calls stuck"),
        ("#risk", at_risk, "thing at risk", "things at risk"),
    ]
    said = ", ".join(f'<a href="{at}">{counted(number, one, many)}</a>' for at, number, one, many in found if number)
    return f'<p class="verdict bad">{said}</p>' if said else '<p class="verdict good">Nothing wrong was seen.</p>'


def _traced(past: Past) -> list[str]:
    """Return the sections that take hooks in functions."""
    if past.total.tracepoints:
        return [section("Calls of page_mkwrite", "rates", wrong.unseen((_NO_CALLS,)))]
    return [
        section("Calls of page_mkwrite", "rates", calls(past)),
        *([section("What calls wait for", "reasons", waits(past))] if asked(past.total.waits) else []),
        section("Latency over the last hour", "latency", heat_map(past.minutes, _AGO, _ENDS)),
    ]


def _status(past: Past) -> str:
    total = past.total
    oldest = f", the oldest for {duration(total.oldest_in_flight_ns)}" if total.in_flight else ""
    in_flight = "" if total.tracepoints else f"; {counted(total.in_flight, 'call')} in flight{oldest}"
    lost = "bad" if total.total_lost else "good"
    return (
        f"<p>Tracing for {duration(total.elapsed_ns)}{in_flight}; "
        f'<span class="{lost}">lost: {total.total_lost}</span></p>'
    )
