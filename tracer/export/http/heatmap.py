"""A latency heat map as an SVG element: minutes from left to right, latencies upwards, darker for more calls."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Final

from tracer.model.histogram import BUCKETS, LOWER_NS, Histogram
from tracer.text import count_text, duration

#: The buckets of each row: an octave, and what lies below the first.
_ROWS: Final = (slice(0, 1), *(slice(first, first + 4) for first in range(1, BUCKETS, 4)))
#: Shades, classes h1 to h6 of the style sheet; h0 is a cell without calls.
_SHADES: Final = 6
#: At least so many rows are shown.
_LEAST_ROWS: Final = 6
_CELL, _LEFT, _BELOW, _HEIGHT = 15, 62, 20, 14


def heat_map(minutes: Sequence[Histogram]) -> str:
    """Return the map, and what it says in words."""
    whole = sum(minutes, Histogram())
    if not whole.count:
        return '<p id="heat-map" class="dim">No calls.</p>'
    columns = [[sum(histogram.buckets[row]) for row in _ROWS] for histogram in minutes]
    used = [row for row in range(len(_ROWS)) if any(column[row] for column in columns)]
    first, last = used[0], max(used[-1], used[0] + _LEAST_ROWS - 1)
    most = max(map(max, columns))
    height = (last - first + 1) * _HEIGHT
    parts = []
    for x, column in enumerate(columns):
        ago = len(columns) - 1 - x
        for row in used:
            if column[row]:
                y = height - (row - first + 1) * _HEIGHT
                parts.append(
                    f'<rect class="h{_shade(column[row], most)}" x="{_LEFT + x * _CELL}" y="{y}" width="{_CELL - 1}" '
                    f'height="{_HEIGHT - 1}"><title>{count_text(column[row])} calls of {_label(row)} to '
                    f"{_label(row + 1)}, {ago} min ago</title></rect>"
                )
    width = _LEFT + len(columns) * _CELL
    parts.append(f'<rect class="h0" x="{_LEFT}" y="0" width="{len(columns) * _CELL}" height="{height}"/>')
    for row in range(first, last + 2, 2):
        y = height - (row - first) * _HEIGHT
        parts.append(f'<text x="{_LEFT - 6}" y="{max(9, y + 4)}" text-anchor="end">{_label(row)}</text>')
    for x in range(0, len(columns), 10):
        parts.append(f'<text x="{_LEFT + x * _CELL}" y="{height + 15}">-{len(columns) - x} min</text>')
    parts.append(f'<text x="{width}" y="{height + 15}" text-anchor="end">now</text>')
    words = (
        f"{count_text(whole.count)} calls: half took less than {duration(whole.quantile(0.5))}, 99 of 100 less than "
        f"{duration(whole.quantile(0.99))}, the slowest {duration(whole.max_ns)}."
    )
    return (
        f'<p>{words}</p><svg id="heat-map" role="img" aria-label="Latency heat map. {words}" '
        f'viewBox="0 0 {width} {height + _BELOW}" width="{width}" height="{height + _BELOW}">{"".join(parts)}</svg>'
    )


def _shade(number: int, most: int) -> int:
    """1 for a single call to ``_SHADES`` for the most, on a logarithmic scale."""
    return 1 + round((_SHADES - 1) * log(number) / log(most)) if most > 1 else _SHADES


def _label(row: int) -> str:
    """Return the latency at which a row begins."""
    return duration(LOWER_NS[_ROWS[row].start]) if row < len(_ROWS) else "more"
