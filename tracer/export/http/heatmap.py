"""A latency heat map: time from left to right, latencies upwards, darker for more calls.

The cells stretch with the page; the labels are outside of them, and keep their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Final

from tracer.model.histogram import BUCKETS, LOWER_NS, Histogram
from tracer.text import count_text, counted, duration

#: The buckets of each row: an octave, and what lies below the first.
_ROWS: Final = (slice(0, 1), *(slice(first, first + 4) for first in range(1, BUCKETS, 4)))
#: Shades, classes h1 to h6 of the style sheet; h0 is a cell without calls.
_SHADES: Final = 6
#: At least so many rows are shown.
_LEAST_ROWS: Final = 6
#: Pixels of a row, of the labels beside them, and above the first and below the last.
_HEIGHT, _LEFT, _ABOVE = 14, 58, 8


def heat_map(columns_of: Sequence[Histogram], moments: Sequence[str], ends: Sequence[str]) -> str:
    """Return the map, and what it says in words: a column for each of ``moments``; ``ends`` are below it."""
    whole = sum(columns_of, Histogram())
    if not whole.count:
        return '<p id="heat-map" class="dim">No calls.</p>'
    columns = [[sum(histogram.buckets[row]) for row in _ROWS] for histogram in columns_of]
    used = [row for row in range(len(_ROWS)) if any(column[row] for column in columns)]
    first, last = used[0], max(used[-1], used[0] + _LEAST_ROWS - 1)
    most = max(map(max, columns))
    height = (last - first + 1) * _HEIGHT
    parts = []
    for x, column in enumerate(columns):
        for row in used:
            if column[row]:
                y = last - row
                said = counted(column[row], "call") if column[row] < 10_000 else f"{count_text(column[row])} calls"
                parts.append(
                    f'<rect class="h{_shade(column[row], most)}" x="{x}.05" y="{y}.05" width="0.9" height="0.9">'
                    f"<title>{said} of {_label(row)} to {_label(row + 1)}, {moments[x]}</title></rect>"
                )
    labels = [
        f'<text x="{_LEFT}" y="{_ABOVE + (last + 1 - row) * _HEIGHT + 4}" text-anchor="end">{_label(row)}</text>'
        for row in range(first, last + 2, 2)
    ]
    words = (
        f"{count_text(whole.count)} {'call' if whole.count == 1 else 'calls'}: half took less than "
        f"{duration(whole.quantile(0.5))}, 99 of 100 less than "
        f"{duration(whole.quantile(0.99))}, the slowest {duration(whole.max_ns)}."
    )
    frame = height + 2 * _ABOVE
    return (
        f'<p>{words}</p><div class="heat"><svg width="{_LEFT}" height="{frame}">{"".join(labels)}</svg>'
        f'<svg id="heat-map" role="img" aria-label="Latency heat map. {words}" preserveAspectRatio="none" '
        f'viewBox="0 {-_ABOVE / _HEIGHT:.3f} {len(columns)} {frame / _HEIGHT:.3f}" height="{frame}">'
        f'{"".join(parts)}</svg><div class="minutes">{"".join(f"<span>{end}</span>" for end in ends)}</div></div>'
    )


def _shade(number: int, most: int) -> int:
    """1 for a single call to ``_SHADES`` for the most, on a logarithmic scale."""
    return 1 + round((_SHADES - 1) * log(number) / log(most)) if most > 1 else _SHADES


def _label(row: int) -> str:
    """Return the latency at which a row begins."""
    return duration(LOWER_NS[_ROWS[row].start]) if row < len(_ROWS) else "more"
