"""``top`` of a time that was recorded: printed minute by minute, or on a terminal with keys that step through it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tracer.cli.live import ESCAPE, LiveTop
from tracer.cli.look_back import LookBack, moment, opened_record
from tracer.cli.output import Output, print_json
from tracer.cli.replay import matches, not_by_process, only, say
from tracer.cli.run import Stop
from tracer.cli.when import When
from tracer.errors import MkwriteError
from tracer.export.json.failures import failure_dict
from tracer.export.json.records import snapshot_dict, stuck_dict, total_dict
from tracer.model.snapshot import Snapshot
from tracer.record.happened import happened, left
from tracer.record.minutes import Minute
from tracer.record.reading import Account, Span, read
from tracer.record.timeline import Moment, Timeline, moments
from tracer.ui.top import TopView

_RIGHT, _LEFT = f"{ESCAPE}[C", f"{ESCAPE}[D"
_KEYS: Final = """\
q          quit
left right the minute before, the minute after
p n        the failure before, the failure after
j          type a time and Enter: 03:12, yesterday 22:00; +1h and -10m are from what is shown
s          sort by the next column
r          reverse the order
/          type what a row must have in its mount point, type, handler, path or --by column;
           Enter keeps it, Esc shows all rows again
h or ?     this help; any key leaves it"""
#: Seconds that the screen waits for a key before it looks whether it is to end.
_WAIT_S: Final = 0.5


def top_of_record(
    asked: LookBack, at: bool, filters: Mapping[str, Any], sort: str, cumulative: bool, as_json: bool, most: int | None
) -> None:
    """Show a recorded time: with ``at`` the minute that the span begins in, else each minute of it, up to ``most``.

    Raises MkwriteError where there is no minute.
    """
    not_by_process(filters)
    out = Output()
    show = Shown(out, filters, sort, cumulative, as_json)
    chosen = partial(matches, filters=filters)
    with opened_record(asked) as directory:
        timeline = Timeline(directory, chosen)
        if out.is_terminal and most != 1 and not as_json and not cumulative:
            with Stop() as stop:
                ReplayTop(stop, timeline, filters, sort).run_from(out, asked.span.since_ns)
            return
        account = Account()
        if at:
            if minute := timeline.minute(asked.span.since_ns):
                show.add(timeline.moment(minute, account))
                asked = asked._replace(span=Span(minute.from_ns, minute.time_ns))
        else:
            for one in islice(moments(read(directory, asked.span, account), chosen), most):
                show.add(one)
        if not show.end():
            problem = f"The record in {asked.record} has no minute of that time."
            raise MkwriteError(problem, _nearest(timeline, asked.span.since_ns))
    say(asked, account)


class Shown:
    """Prints moments as they come; ``cumulative``: as one, at the end."""

    def __init__(self, out: Output, filters: Mapping[str, Any], sort: str, cumulative: bool, as_json: bool) -> None:
        self._out = out
        self._filters = filters
        self._sort = sort
        self._cumulative = cumulative
        self._as_json = as_json
        self._total: Moment | None = None

    def add(self, one: Moment) -> None:
        """Take in the next moment."""
        one = replace(one, minute=only(one.minute, self._filters))
        self._total = one if self._total is None else self._total + one
        if not self._cumulative:
            self._print(one, self._total)

    def end(self) -> bool:
        """Print what is left; whether there was anything."""
        if self._cumulative and self._total:
            self._print(self._total, self._total)
        return self._total is not None

    def _print(self, one: Moment, total: Moment) -> None:
        whole = total.minute.counts
        if not self._as_json:
            self._out.print(view(one, whole, sort=self._sort, totals=self._cumulative))
            self._out.print()
            return
        failures = [failure_dict(failure) for failure in one.failures]
        stuck = [stuck_dict(each) for each in one.stuck]
        more = {"failures": failures, "failures_omitted": one.untold, "stuck": stuck}
        print_json({**snapshot_dict(one.minute.counts), **more, "total": total_dict(whole)})


def _nearest(timeline: Timeline, ns: int) -> str:
    """Say where there is one."""
    before, after = timeline.before(ns), timeline.after(ns)
    ends = [f"before it, the last ends at {moment(before.time_ns)}"] if before else []
    ends += [f"after it, the first begins at {moment(after.from_ns)}"] if after else []
    return f"Look at another time: {'; '.join(ends) or 'it has none at all'}."


def view(shown: Moment, total: Snapshot, **more: Any) -> TopView:
    """Return the tables of a recorded moment, with what happened besides, and what filesystems had left."""
    minute = shown.minute
    ended = f"{datetime.fromtimestamp(minute.time_ns // 1_000_000_000):%H:%M:%S}"
    at, besides = f"{moment(minute.from_ns)} to {ended}", (*happened(shown.frames), *left(minute.space))
    return TopView(minute.counts, total, shown.failures, shown.stuck, at=at, besides=besides, **more)


class ReplayTop(LiveTop):
    """The screen of ``top`` at a minute that was recorded, and the keys that lead to others."""

    keys = _KEYS

    def __init__(self, stop: Stop, timeline: Timeline, filters: Mapping[str, Any], sort: str) -> None:
        super().__init__(stop, sort, cumulative=False, who="")
        self._timeline = timeline
        self._filters = filters
        self._moment: Moment | None = None
        self._said = ""
        #: The time that is being typed; None while none is.
        self._time: str | None = None

    def run_from(self, console: Console, ns: int) -> None:
        """Show the minute of a moment, or the next one, and what keys lead to, until one ends it."""
        first = self._timeline.minute(ns) or self._timeline.after(ns)
        if first is None:
            raise MkwriteError("The record has no minute of that time.", _nearest(self._timeline, ns))
        self._go(first)
        with self.screen(console) as (keys, live):
            self._draw(live)
            while not self._stop.requested:
                if pressed := keys.read(_WAIT_S):
                    for key in [pressed] if pressed[0] == ESCAPE else pressed:
                        self.press(key)
                    self._draw(live)

    def press(self, key: str) -> None:
        """Act on a key, or on the sequence of an arrow."""
        self._said = ""
        if self._time is not None:
            self._type_time(key)
        elif self.typing or self.helping or self._moment is None:
            super().press(key[0])
        elif key == "j":
            self._time = ""
        elif key in (_LEFT, _RIGHT, "p", "n"):
            self._step(key, self._moment.minute)
        elif len(key) == 1:
            super().press(key)

    def _step(self, key: str, shown: Minute) -> None:
        timeline = self._timeline
        match key:
            case "p" | "n":
                before = key == "p"
                found = timeline.failure_before(shown.from_ns) if before else timeline.failure_after(shown.time_ns)
                if found is None:
                    self._said = f"there is no failure {'before' if before else 'after'} this minute"
                else:
                    self._to(found)
            case _:
                back = key == _LEFT
                minute = timeline.before(shown.from_ns) if back else timeline.after(shown.time_ns)
                if minute is None:
                    self._said = f"nothing is recorded {'before' if back else 'after'} this minute"
                else:
                    self._go(minute)

    def _to(self, ns: int) -> None:
        minute = self._timeline.minute(ns)
        if minute is None:
            self._said = f"nothing is recorded at {moment(ns)}"
            minute = self._timeline.after(ns) or self._timeline.before(ns)
        if minute:
            self._go(minute)

    def _go(self, minute: Minute) -> None:
        self._moment = self._timeline.moment(minute)

    def _type_time(self, key: str) -> None:
        assert self._time is not None and self._moment is not None
        if key == ESCAPE:
            self._time = None
        elif key in "\r\n":
            text, self._time = self._time.strip(), None
            here = datetime.fromtimestamp(self._moment.minute.from_ns / 1e9).astimezone()
            try:
                self._to(When(first=True).moment(text, here))
            except (ValueError, OverflowError, OSError):
                self._said = f"{text!r} is no time"
        elif key in "\x7f\b":
            self._time = self._time[:-1]
        elif len(key) == 1 and key.isprintable():
            self._time += key

    def _hint(self) -> str:
        if self._time is not None:
            return f"time: {self._time}_   Enter go  Esc stay"
        if self.typing:
            return super()._hint()
        only_rows = f" ({self.only})" if self.only else ""
        said = f"{self._said}   " if self._said else ""
        return f"{said}h help  q quit  left/right minute  n/p failure  j time  s sort ({self.sort})  / only{only_rows}"

    def _draw(self, live: Live) -> None:
        if self.helping:
            live.update(Text(self.keys), refresh=True)
        elif self._moment is not None:
            more = {"sort": self.sort, "reverse": self.reverse, "only": self.only, "hint": self._hint()}
            shown = replace(self._moment, minute=only(self._moment.minute, self._filters))
            live.update(view(shown, shown.minute.counts, full_screen=True, **more), refresh=True)
