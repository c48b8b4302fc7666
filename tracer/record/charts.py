"""Time lines as SVG: stacked bars, and lines on a logarithmic scale. Labels lie beside them, and keep their size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log10
from typing import Final

from tracer.export.http.markup import escaped

#: Of a picture: it is as wide as the page.
_HEIGHT: Final = 100
#: Shades of the style sheet, k1 to k8; what comes after has the last.
COLOURS: Final = 8

Said = Callable[[float], str]


def bars(name: str, columns: Sequence[Mapping[str, float] | None], said: Said, moments: Sequence[str]) -> str:
    """Return a chart of stacked bars, one for each column: None is a time that nothing is recorded of.

    ``said`` writes a value; ``moments`` are the times of the columns, and of the end.
    """
    totals: dict[str, float] = {}
    for column in columns:
        for key, value in (column or {}).items():
            totals[key] = totals.get(key, 0) + value
    keys = sorted((key for key, value in totals.items() if value), key=lambda key: -totals[key])
    most = max((sum(column.values()) for column in columns if column), default=0)
    if not most:
        return f'<p id="{name}" class="dim">None.</p>'
    parts = []
    for x, column in enumerate(columns):
        if column is None:
            parts.append(_unknown(x))
            continue
        below = 0.0
        told = ", ".join(f"{key} {said(column[key])}" for key in keys if column.get(key))
        for number, key in enumerate(keys):
            height = _HEIGHT * column.get(key, 0) / most
            if height:
                parts.append(
                    f'<rect class="{_colour(number)}" x="{x}.08" y="{_HEIGHT - below - height:.2f}" width="0.84" '
                    f'height="{max(height, 1):.2f}"><title>{escaped(f"{moments[x]}: {told}")}</title></rect>'
                )
            below += height
    legend = [(_colour(number), f"{key}: {said(totals[key])}") for number, key in enumerate(keys)]
    return _framed(name, parts, len(columns), (said(most), "0"), moments, legend)


def lines(
    name: str, columns: Sequence[Mapping[str, float] | None], keys: Sequence[str], said: Said, moments: Sequence[str]
) -> str:
    """Return a chart of a line for each of ``keys``, on a logarithmic scale; it breaks where a column has none."""
    values = [column[key] for column in columns if column for key in keys if column.get(key, 0) > 0]
    if not values:
        return f'<p id="{name}" class="dim">None.</p>'
    least, most = log10(min(values)), log10(max(values))
    span = most - least or 1.0
    parts = [_unknown(x) for x, column in enumerate(columns) if column is None]
    for number, key in enumerate(keys):
        path, drawn = [], False
        for x, column in enumerate(columns):
            value = (column or {}).get(key, 0)
            if value > 0:
                y = _HEIGHT - (log10(value) - least) / span * (_HEIGHT - 4) - 2
                path.append(f"{'L' if drawn else 'M'}{x + 0.1:.1f} {y:.1f}H{x + 0.9:.1f}")
            drawn = value > 0
        parts.append(f'<path class="line {_colour(number)}" d="{"".join(path)}"><title>{escaped(key)}</title></path>')
    legend = [(_colour(number), key) for number, key in enumerate(keys)]
    return _framed(name, parts, len(columns), (said(10**most), said(10**least)), moments, legend)


def _unknown(x: int) -> str:
    return f'<rect class="unknown" x="{x}" y="0" width="1" height="{_HEIGHT}"><title>nothing is recorded</title></rect>'


def _colour(number: int) -> str:
    return f"k{min(number + 1, COLOURS)}"


def _framed(
    name: str,
    parts: Sequence[str],
    width: int,
    scale: tuple[str, str],
    moments: Sequence[str],
    legend: Sequence[tuple[str, str]],
) -> str:
    keys = "".join(f'<span><i class="{kind}"></i>{escaped(text)}</span>' for kind, text in legend)
    words = ", ".join(text for _, text in legend)
    times = "".join(f"<span>{escaped(moments[at])}</span>" for at in sorted({0, width // 2, width}))
    return (
        f'<div class="chart"><div class="scale"><span>{escaped(scale[0])}</span><span>{escaped(scale[1])}</span></div>'
        f'<svg id="{name}" role="img" aria-label="{escaped(words)}" preserveAspectRatio="none" '
        f'viewBox="0 0 {width} {_HEIGHT}">{"".join(parts)}</svg>'
        f'<div class="minutes">{times}</div></div><p class="legend">{keys}</p>'
    )
