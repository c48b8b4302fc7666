"""What stands in the way, as a list for people: a finding a row, in words as well as in colour."""

from __future__ import annotations

from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from tracer.doctor.checkup import Checkup, Finding, FindingState
from tracer.text import printable

_STYLE: Final = {
    FindingState.OK: "green",
    FindingState.WARNING: "yellow",
    FindingState.OBSTACLE: "bold red",
    FindingState.UNKNOWN: "cyan",
}
_SIGN_WIDTH: Final = 10
_LEAST: Final = 20
_TITLES: Final = {"host": "This host", "hooks": "Hooks, by inference", "trial": "Hooks, by trying"}


class DoctorView:
    """A renderable: the sections of a report, and the verdict as the last line."""

    def __init__(self, report: Checkup) -> None:
        self.report = report

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = self.report.rows
        for section in dict.fromkeys(row.section for row in rows):
            shown = [row for row in rows if row.section == section]
            indent = _SIGN_WIDTH + max(len(printable(row.name)) for row in shown) + 2
            yield Text(_TITLES[section], style="bold")
            for row in shown:
                yield _lines(row, indent, max(_LEAST, options.max_width - indent), console)
            yield Text("")
        yield _wrapped(_verdict(self.report), options.max_width, 0, console)


def _lines(row: Finding, indent: int, width: int, console: Console) -> Text:
    """State, name and finding, the latter wrapped to ``width`` cells and hung at ``indent``."""
    first = Text()
    first.append(f"{row.state.value:<{_SIGN_WIDTH}}", _STYLE[row.state])
    first.append(f"{printable(row.name):<{indent - _SIGN_WIDTH}}")
    return first + _wrapped(_finding(row), width, indent, console)


def _wrapped(text: Text, width: int, indent: int, console: Console) -> Text:
    """``text`` in lines of at most ``width`` cells, all but the first behind ``indent`` blanks."""
    lines = text.wrap(console, width)
    for line in lines:
        line.rstrip()
    return Text("\n" + " " * indent).join(lines)


def _finding(row: Finding) -> Text:
    """Return the finding; below it what it costs and what to do, each on a line of its own."""
    text = Text(printable(row.text))
    if row.cost:
        text.append(f"\n{printable(row.cost)}")
    if row.cure:
        text.append(f"\n-> {printable(row.cure)}", "bold")
    return text


def _verdict(report: Checkup) -> Text:
    reason = printable(report.reason)
    if report.backend is None:
        code = int(report.exit_code)
        return Text(f"Tracing does not work here: {reason} (exit code {code})", style="bold red")
    return Text(f"Tracing works here, with the {report.backend.value} backend: {reason}", style="bold green")
