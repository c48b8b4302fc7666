"""Latency histograms as bars, one for each filesystem, handler and path."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.model.calls import Initiator, Series
from tracer.model.histogram import BUCKETS, LOWER_NS, Histogram
from tracer.model.snapshot import Snapshot
from tracer.text import duration, printable
from tracer.ui import labels
from tracer.ui.calls import all_outcomes

#: More buckets than this are merged to octaves.
FINE: Final = 16
#: The longest bar: beyond it more width tells no more.
LONGEST_BAR: Final = 60

_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True)
class Bar:
    """``count`` calls took at least ``low`` and less than ``high`` ns (None: no upper bound)."""

    low: int
    high: int | None
    count: int


def bars(histogram: Histogram, *, fine: bool = False) -> list[Bar]:
    """Return the buckets from the first to the last one that is not empty.

    Where these are more than ``FINE``, the four of each octave are merged, unless ``fine``.
    """
    used = [index for index, count in enumerate(histogram.buckets) if count]
    if not used:
        return []
    first, last = used[0], used[-1]
    step = 1
    if last - first >= FINE and not fine:
        step = 4
        # Octaves begin at 1, 5, 9...; bucket 0 holds all that is below the first.
        first = first and first - (first - 1) % 4
    found = []
    low = first
    while low <= last:
        high = low + (step if low else 1)
        upper = LOWER_NS[high] if high < BUCKETS else None
        found.append(Bar(LOWER_NS[low], upper, sum(histogram.buckets[low:high])))
        low = high
    return found


class HistogramsView:
    """A renderable: the histograms of ``snapshot``, those with the most calls first.

    ``by_outcome`` keeps outcomes apart; ``fine`` never merges buckets.
    """

    def __init__(self, snapshot: Snapshot, *, by_outcome: bool = False, fine: bool = False) -> None:
        self.snapshot = snapshot
        self.by_outcome = by_outcome
        self.fine = fine

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        groups = self.snapshot.grouped(_outcome_kept if self.by_outcome else all_outcomes)
        for series, histogram in sorted(groups.items(), key=lambda item: (-item[1].count, item[0])):
            yield Text(self._title(series), style="bold")
            yield Text(statistics(histogram))
            yield from _bar_lines(bars(histogram, fine=self.fine), options)
            yield Text("")
        if not groups:
            yield Text(labels.NO_CALLS)

    def _title(self, series: Series) -> str:
        parts = [
            labels.mount(series),
            labels.fstype(series),
            labels.device(series),
            labels.handler(series),
            series.path.value,
        ]
        if self.by_outcome:
            parts.append(series.outcome.value)
        if series.who:
            parts.append(printable(series.who))
        return " ".join(parts)


def statistics(histogram: Histogram) -> str:
    """Count, mean, percentiles and maximum in one line."""
    percentiles = "  ".join(f"p{q} {duration(histogram.quantile(q / 100))}" for q in (50, 90, 99))
    mean, largest = duration(histogram.mean_ns), duration(histogram.max_ns)
    return f"count {histogram.count}  mean {mean}  {percentiles}  max {largest}"


def _outcome_kept(series: Series) -> Series:
    return replace(series, initiator=Initiator.UNKNOWN, generation=0)


def _bar_lines(found: list[Bar], options: ConsoleOptions) -> Iterator[Text]:
    most = max((bar.count for bar in found), default=0)
    digits = len(str(most))
    room = max(0, min(LONGEST_BAR, options.max_width - 17 - digits - 2))
    draw = _ascii_bar if options.ascii_only else _bar
    for bar in found:
        high = duration(bar.high) if bar.high is not None else "..."
        line = Text(f"{duration(bar.low):>6} - {high:>6}  {bar.count:>{digits}}  ", no_wrap=True)
        line.append(draw(bar.count, most, room), _colour(bar.low))
        line.rstrip()
        line.truncate(options.max_width, overflow="crop")
        yield line


def _bar(count: int, most: int, room: int) -> str:
    """Return a bar of at most ``room`` cells, to an eighth of one; what is not zero is seen."""
    eighths = max(1, round(8 * room * count / most)) if count and room else 0
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (_EIGHTHS[rest] if rest else "")


def _ascii_bar(count: int, most: int, room: int) -> str:
    return "#" * max(1, round(room * count / most)) if count and room else ""


def _colour(low_ns: int) -> str:
    """Green below a millisecond, yellow to 100 ms: beyond that a person notices."""
    return "green" if low_ns < 1_000_000 else "yellow" if low_ns < 100_000_000 else "red"
