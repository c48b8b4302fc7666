"""Lines of columns that fit a width: which columns to show, and how wide.

The policy: a column that cannot have its least width costs another one its place, the one with the highest
``drop`` first; what width is left goes to the shortened columns, a cell each in turn. A column is never wider
than its content needs, so a table that fits is the same on every wider terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.text import keep_head

Row = TypeVar("Row")

GAP: Final = 2
UNLIMITED: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Column(Generic[Row]):
    """One column of rows: its title, the text of a cell, and how it behaves when width is short.

    ``least`` and ``most`` bound its width. ``drop`` is the rank in which columns give way, the highest first;
    0 stays. ``shorten(text, width)`` cuts a cell. ``style(row)`` is a rich style.
    """

    title: str
    cell: Callable[[Row], str]
    least: int
    most: int = UNLIMITED
    drop: int = 0
    right: bool = False
    shorten: Callable[[str, int], str] = keep_head
    style: Callable[[Row], str] | None = None


def number(
    title: str,
    cell: Callable[[Row], str],
    width: int = 6,
    drop: int = 0,
    style: Callable[[Row], str] | None = None,
) -> Column[Row]:
    """Return a column of numbers: of fixed width, so that it stays where it is while they change.

    A number that is too long pushes the others aside: half of it would be a lie.
    """
    return Column(title, cell, width, width, drop, True, lambda text, _width: text, style)


@dataclass(frozen=True, slots=True)
class Layout(Generic[Row]):
    """Columns and the width in cells of each."""

    columns: tuple[Column[Row], ...]
    widths: tuple[int, ...]

    def header(self) -> Text:
        """Return the line of titles."""
        return self._line([(column.title, "bold") for column in self.columns])

    def row(self, row: Row) -> Text:
        """Return the line of one row."""
        return self._line([(c.cell(row), c.style(row) if c.style else "") for c in self.columns])

    def _line(self, cells: Iterable[tuple[str, str]]) -> Text:
        line = Text(no_wrap=True, overflow="crop", end="")
        for (text, style), column, width in zip(cells, self.columns, self.widths, strict=True):
            if line:
                line.append(" " * GAP)
            text = column.shorten(text, width)
            blank = " " * (width - cell_len(text))
            before, after = (blank, "") if column.right else ("", blank)
            line.append(before).append(text, style).append(after)
        line.rstrip()
        return line


def fit(columns: Sequence[Column[Row]], width: int, rows: Iterable[Row] | None = None) -> Layout[Row]:
    """Return the layout of ``columns`` in ``width`` cells, for ``rows``, or (None) for rows still to come."""
    kept = list(columns)
    while len(kept) > 1 and _least(kept) > width:
        worst = max(kept, key=lambda column: column.drop)
        if not worst.drop:
            break
        kept.remove(worst)
    known = None if rows is None else list(rows)
    wanted = [_wanted(column, known) for column in kept]
    widths = [min(column.least, max(width, 1)) for column in kept]
    spare = width - _least(kept)
    while spare > 0 and (growing := [i for i in range(len(kept)) if widths[i] < wanted[i]]):
        step = max(1, min(spare // len(growing), *(wanted[i] - widths[i] for i in growing), UNLIMITED))
        for index in growing[:spare]:
            widths[index] += step
            spare -= step
    return Layout(tuple(kept), tuple(widths))


def _least(columns: Sequence[Column[Row]]) -> int:
    return sum(column.least for column in columns) + GAP * (len(columns) - 1)


def _wanted(column: Column[Row], rows: Sequence[Row] | None) -> int:
    if rows is None:
        return column.most
    widest = max((cell_len(column.cell(row)) for row in rows), default=0)
    return min(column.most, max(column.least, cell_len(column.title), widest))


class Table(Generic[Row]):
    """A renderable: a header and a line for each row, in the width that the console has.

    At most ``limit`` rows are shown; a last line says how many are not.
    """

    def __init__(self, columns: Sequence[Column[Row]], rows: Sequence[Row], limit: int | None = None) -> None:
        self.columns = columns
        self.rows = rows
        self.limit = limit

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = self.rows
        if self.limit is not None and len(shown) > self.limit:
            shown = shown[: max(0, self.limit - 1)]
        layout = fit(self.columns, options.max_width, shown)
        yield from lines([layout.header(), *map(layout.row, shown)], options.max_width)
        if hidden := len(self.rows) - len(shown):
            yield from lines([Text(f"... {hidden} more", style="dim")], options.max_width)


def lines(texts: Iterable[Text], width: int) -> Iterable[Text]:
    """Each text as one line, cut at ``width`` cells and never wrapped."""
    for text in texts:
        text.truncate(width, overflow="crop")
        text.no_wrap = True
        text.end = "\n"
        yield text
