"""Limits and what may still be asked of them, as a table; a verdict in words for each that is in danger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.mappings.risk import Assessment, Forecasts, RiskState, command, consequence, lost_late, remedy, sentence
from tracer.mappings.survey import Survey
from tracer.text import counted, duration, keep_tail, printable, size_text
from tracer.ui import labels
from tracer.ui.remarks import remarks
from tracer.ui.table import Column, Table, number

_STYLE: Final = {RiskState.OK: "green", RiskState.TIGHT: "yellow", RiskState.SHORT: "bold red"}
#: Files named for each limit.
_NAMED: Final = 3
#: Cells that a mount point and a limit get before other columns do.
_MOUNT: Final = 24
_LIMIT: Final = 22


class RiskView:
    """A renderable: a line for each limit, then the files of those in danger, with what to do, then the notes."""

    def __init__(self, survey: Survey, forecasts: Forecasts | None = None) -> None:
        self.survey = survey
        self.forecasts = forecasts

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        verdicts = self.survey.verdicts
        yield Table(_columns(self.forecasts, verdicts), verdicts)
        for verdict in verdicts:
            if verdict.state is not RiskState.OK:
                yield from _explained(verdict)
        for cut in self.survey.cut:
            yield Text("")
            yield Text(cut.sentence, style="bold red")
        if self.survey.cut:
            yield Text("Any touch of such a page ends with SIGBUS, or EFAULT from a system call.", style="dim")
            yield Text(
                "-> Restart these programs before they touch it, and find out who cuts the files: mkwrite sigbus names "
                "them. A program that maps more than its file has, to grow it as it goes (LMDB), touches none of it.",
                style="bold",
            )
        yield _summary(self.survey)
        yield from _lost_late(verdicts)
        yield from remarks(self.survey.notes, self.survey.unseen)


def _columns(forecasts: Forecasts | None, verdicts: Sequence[Assessment]) -> list[Column[Assessment]]:
    """Room goes to what is read first: the path, then what runs out; a column in which nothing stands has none."""

    def widest(cell: Callable[[Assessment], str], most: int) -> int:
        return min(most, max((cell_len(cell(verdict)) for verdict in verdicts), default=0))

    columns: list[Column[Assessment]] = [
        Column("STATE", lambda verdict: verdict.state.value, 5, style=lambda verdict: _STYLE[verdict.state]),
        Column("MOUNT", _mount, max(8, widest(_mount, _MOUNT)), shorten=keep_tail),
        Column("FSTYPE", _fstype, max(6, widest(_fstype, _MOUNT)), drop=4),
        Column("LIMIT", _limit, max(10, widest(_limit, _LIMIT))),
        number("MAY ASK", lambda verdict: size_text(verdict.new), 8),
        *([number("REWRITE", _rewrites, 8, drop=2)] if any(verdict.rewrites for verdict in verdicts) else []),
        number("FREE", lambda verdict: size_text(max(0, verdict.limit.free)), 8),
        number("USED", lambda verdict: percent(verdict.used), 5, drop=1),
        number("FILES", lambda verdict: str(len(verdict.demands)), 5, drop=3),
    ]
    if forecasts is not None:
        columns.append(number("TAKEN/s", lambda verdict: size_text(round(forecasts[verdict.limit.key][0])), 8))
        columns.append(number("REFUSED IN", lambda verdict: _when(forecasts[verdict.limit.key][1]), 10))
    return columns


def percent(share: float) -> str:
    """Return a share of what is free, in at most 5 columns."""
    return ">999%" if share > 9.99 else f"{share:.0%}"


def _mount(verdict: Assessment) -> str:
    return labels.mount(verdict.limit.place)


def _fstype(verdict: Assessment) -> str:
    return labels.fstype(verdict.limit.place)


def _limit(verdict: Assessment) -> str:
    return f"{verdict.limit.kind.value} {printable(verdict.limit.who)}".rstrip()


def _rewrites(verdict: Assessment) -> str:
    return size_text(verdict.rewrites) if verdict.rewrites else "-"


def _when(seconds: float) -> str:
    return "-" if math.isinf(seconds) else duration(seconds * 1e9)


def _explained(verdict: Assessment) -> list[Text]:
    lines = [Text("")]
    asking = [demand for demand in verdict.demands if demand.asks(verdict.limit.kind) or demand.rewrites]
    lines += (Text(sentence(demand, verdict.limit)) for demand in asking[:_NAMED])
    if len(asking) > _NAMED:
        lines.append(Text(f"... and {counted(len(asking) - _NAMED, 'more file')}"))
    lines.append(Text(consequence(verdict.limit), style="dim"))
    if asking:
        lines.append(Text(f"-> {remedy(asking[0], verdict.limit)}", style="bold"))
        if run := command(asking[0], verdict.limit):
            # To be pasted: never broken, whatever the width.
            lines.append(Text(f"   {run}", no_wrap=True, overflow="ignore"))
    return lines


def _lost_late(verdicts: Sequence[Assessment]) -> Iterator[Text]:
    """Name what would lose writes silently, however much room there is now."""
    late = [verdict for verdict in verdicts if lost_late(verdict.limit)]
    if not late:
        return
    files = {(demand.place, demand.inode, demand.path) for verdict in late for demand in verdict.demands}
    where = sorted({labels.mount(verdict.limit.place) for verdict in late})
    which = f"{counted(len(files), 'mapped file')} on {', '.join(where)}"
    yield Text(
        f"{which} would lose writes silently where no space is left: nothing is refused. "
        "mkwrite sigbus tells when it happens.",
        style="yellow",
    )


def _summary(survey: Survey) -> Text:
    verdicts = survey.verdicts
    short = sum(verdict.state is RiskState.SHORT for verdict in verdicts)
    tight = sum(verdict.state is RiskState.TIGHT for verdict in verdicts)
    mapped = counted(len(survey.demands), "mapped file")
    beyond = f"{counted(len(survey.cut), 'file')} mapped beyond the end." if survey.cut else ""
    if beyond and not short and not tight:
        return Text(f"\n{mapped}: room for all that they may ask for; {beyond}", style="bold red")
    if not verdicts and (survey.unseen or survey.skipped):
        return Text("No limit was found for what could be looked at, which is not all.", style="bold yellow")
    if not verdicts:
        return Text("Nothing is mapped shared and writable on a filesystem that can run out of space.")
    if not short and not tight and survey.unseen:
        return Text(f"\n{mapped}: there is room for these, which are not all.", style="bold yellow")
    if not short and not tight:
        return Text(f"\n{mapped}: there is room for all that they may ask for.", style="bold green")
    worst = RiskState.SHORT if short else RiskState.TIGHT
    return Text(
        f"\n{mapped}: {counted(short, 'limit')} short, {tight} tight{'; ' if beyond else '.'}{beyond}",
        style=_STYLE[worst],
    )
