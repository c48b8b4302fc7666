"""The tables: from the documents of the parts to Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

Document = dict[str, Any]

#: Instructions that medians may lie apart without a word.
_APART = 2


def as_markdown(documents: Sequence[Document]) -> str:
    """What was measured, as tables."""
    lines: list[str] = []
    for document in documents:
        kernel = document.get("kernel", "")
        if "tools" in document and document["tools"] not in (
            d.get("tools") for d in documents[: documents.index(document)]
        ):
            lines += ["Tools: " + ", ".join(f"{name} {version}" for name, version in document["tools"].items()), ""]
        for part, table in _TABLES.items():
            if part in document:
                lines += [*table(document[part], kernel), ""]
        here = document.get("here", {})
        for part, of_here in _TABLES_HERE.items():
            if part in here:
                lines += [*of_here(here), ""]
    return "\n".join(lines)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"### {title}"
    yield ""
    yield "| " + " | ".join(columns) + " |"
    yield "|---" + "|---:" * (len(columns) - 1) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _faults(rows: dict[str, Any], kernel: str) -> Iterator[str]:
    before = rows["nothing"]
    kinds = list(before)

    def cells(name: str, row: dict[str, Any]) -> list[str]:
        if name == "nothing":
            return [f"{row[kind]['median']:,.0f}" for kind in kinds]
        return [f"{row[kind]['median'] - before[kind]['median']:+,.0f}" for kind in kinds]

    yield from _table(
        f"Instructions added to a fault, {kernel}",
        ["", *kinds],
        ([("untraced fault" if name == "nothing" else name), *cells(name, row)] for name, row in rows.items()),
    )
    yield ""
    apart = [
        f"{name}: {cost['spread']:,.0f} ({kind})"
        for name, row in rows.items()
        for kind, cost in row.items()
        if cost["spread"] > _APART
    ]
    yield (
        f"The medians of repeated runs lie at most {_APART} instructions apart, but for these:"
        if apart
        else (f"The medians of repeated runs lie at most {_APART} instructions apart.")
    )
    if apart:
        yield ""
        yield "; ".join(apart)


def _start(rows: dict[str, Any], kernel: str) -> Iterator[str]:
    yield from _table(
        f"Start and memory, {kernel}",
        ["", "10^9 instructions", "peak MB", "steady MB"],
        (
            [
                name,
                f"{row['cpu_s']:.2f}",
                f"{row['peak_mb']:.0f}",
                f"{row['steady_mb']:.0f}" if "steady_mb" in row else "",
            ]
            for name, row in rows.items()
        ),
    )


def _keys(rows: dict[str, Any], kernel: str) -> Iterator[str]:
    # JSON has made text of the numbers.
    untraced, *traced = rows.items()
    numbers = list(untraced[1])
    yield from _table(
        f"Instructions added to a first write on xfs, by number of files, {kernel}",
        ["", *(f"{int(number):,}" for number in numbers)],
        ([name, *(f"{costs[n] - untraced[1][n]:+,.0f}" for n in numbers)] for name, costs in traced),
    )


def _threads(rows: dict[str, Any], kernel: str) -> Iterator[str]:
    yield from _table(
        f"Instructions of a first write and its madvise on ext4, traced / untraced, by threads, {kernel}",
        ["", *next(iter(rows.values()))],
        (
            [name, *(f"{median(r):.2f} ({min(r):.2f}-{max(r):.2f})" for r in by_number.values())]
            for name, by_number in rows.items()
        ),
    )


def _rates(rows: Iterable[Document], kernel: str) -> Iterator[str]:
    yield from _table(
        f"Faults counted a second, {kernel}",
        ["", "backend", "a second", "made", "counted", "of the process", "told one by one", "lost"],
        (
            [
                row["what"],
                row["backend"],
                f"{row['a_second']:,.0f}",
                f"{row['made']:,}",
                f"{row['counted']:,}",
                *(f"{row[what]:,}" if what in row else "" for what in ("of_process", "told")),
                f"{row['lost']:,}",
            ]
            for row in rows
        ),
    )


def _readout(here: Document) -> Iterator[str]:
    yield from _table(
        f"Reading the counts: CPU time on {here['processor']}, Python {here['python']}",
        ["CPUs", "series of calls", "snapshot, ms", "samples in a scrape", "scrape, ms"],
        (
            [
                f"{row['cpus']}",
                f"{row['keys']:,}",
                f"{row['snapshot']['ms']:.1f} ±{row['snapshot']['spread_ms'] / 2:.1f}",
                f"{row['samples']:,}",
                f"{row['scrape']['ms']:.0f} ±{row['scrape']['spread_ms'] / 2:.0f}",
            ]
            for row in here["readout"]
        ),
    )


def _start_here(here: Document) -> Iterator[str]:
    yield from _table(
        "Start here: from exec to the end, or to the first sample of what stays; no function traced",
        ["", "s of CPU time", "s", "peak MB", "steady MB", "CPU then, %"],
        (
            [
                name,
                f"{row['cpu_s']:.2f}",
                f"{row['wall_s']:.2f}",
                f"{row['peak_mb']:.0f}",
                f"{row['steady_mb']:.0f}" if "steady_mb" in row else "",
                f"{row['rest_percent']:.2f}" if "rest_percent" in row else "",
            ]
            for name, row in here["start"].items()
        ),
    )


def _synthetic(here: Document) -> Iterator[str]:
    yield from _table(
        f"Synthetic calls on {here['processor']}, Linux {here['kernel']}",
        ["CPUs", "made", "counted", "lost", "a second", "a second of CPU time", "scrapes meanwhile"],
        (
            [
                f"{row['threads']}",
                f"{row['made']:,}",
                f"{row['counted']:,}" + ("" if row["exact"] else ", but not by device and outcome"),
                f"{row['lost']:,}",
                f"{row['made'] / row['seconds']:,.0f}",
                f"{row['made'] / row['cpu_s']:,.0f}",
                f"{row['scrapes']}",
            ]
            for row in here["synthetic"]
        ),
    )


_TABLES: Mapping[str, Callable[[Any, str], Iterator[str]]] = {
    "faults": _faults, "start": _start, "keys": _keys, "threads": _threads, "rates": _rates,
}  # fmt: skip
_TABLES_HERE: Mapping[str, Callable[[Document], Iterator[str]]] = {
    "readout": _readout, "start": _start_here, "synthetic": _synthetic,
    "rates": lambda here: _rates(here["rates"], f"here, Linux {here['kernel']}"),
}  # fmt: skip
