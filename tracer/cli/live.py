"""``top`` on a terminal: the alternate screen, and keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tracer.cli.keys import Keys
from tracer.cli.run import Interval, Pause, Stop
from tracer.cli.suspend import suspendable
from tracer.model.failures import Failure
from tracer.ui.calls import SORTS
from tracer.ui.top import LAST_FAILURES, TopView

ESCAPE: Final = "\x1b"
#: What the help screen says.
KEYS: Final = """\
q          quit
s          sort by the next column
r          reverse the order
p          pause the screen, and let it go on; counting never stops
/          type what a row must have in its mount point, type, handler, path or --by column;
           Enter keeps it, Esc shows all rows again
h or ?     this help; any key leaves it"""


class LiveTop:
    """The screen and what its keys change."""

    def __init__(self, stop: Stop, sort: str, cumulative: bool, who: str) -> None:
        self._stop = stop
        self.sort = sort
        self.reverse = False
        self.paused = False
        self.helping = False
        #: What rows must have in them, and whether it is being typed.
        self.only = ""
        self.typing = False
        self._cumulative = cumulative
        self._who = who
        self._shown: Interval | None = None
        self._failures: deque[Failure] = deque(maxlen=LAST_FAILURES)

    def run(self, console: Console, ticks: Callable[[Pause], Iterator[Interval]]) -> None:
        """Show each interval of ``ticks(pause)`` until they end or a key ends it."""
        with self.screen(console) as (keys, live):

            def pause(seconds: float) -> None:
                pressed = keys.read(seconds)
                # A key that is no character, such as an arrow, comes as a sequence that begins with Esc.
                for key in "" if len(pressed) > 1 and pressed[0] == ESCAPE else pressed:
                    self.press(key)
                if pressed:
                    self._draw(live)

            for interval in ticks(pause):
                self._failures.extend(interval.failures)
                if not self.paused:
                    self._shown = interval
                    self._draw(live)

    @contextmanager
    def screen(self, console: Console) -> Iterator[tuple[Keys, Live]]:
        """Take the terminal, and give it back while the process is suspended."""
        with Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:

            def leave() -> None:
                console.set_alt_screen(False)
                console.show_cursor(True)
                keys.release()

            def enter() -> None:
                keys.take()
                console.set_alt_screen(True)
                console.show_cursor(False)
                self._draw(live)

            with suspendable(leave, enter):
                yield keys, live

    def press(self, key: str) -> None:
        """Act on a key; others do nothing."""
        if self.typing:
            self._type(key)
        elif self.helping:
            self.helping = False
        elif key == "/":
            self.typing = True
        elif key == ESCAPE:
            self.only = ""
        elif key in "h?":
            self.helping = True
        elif key == "q":
            self._stop.requested = True
        elif key == "s":
            names = list(SORTS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
        elif key == "r":
            self.reverse = not self.reverse
        elif key == "p":
            self.paused = not self.paused

    def _type(self, key: str) -> None:
        """Add a character to the filter, or take one away; Enter and Esc end that."""
        if key in "\r\n":
            self.typing = False
        elif key == ESCAPE:
            self.only, self.typing = "", False
        elif key in "\x7f\b":
            self.only = self.only[:-1]
        elif key.isprintable():
            self.only += key

    def _hint(self) -> str:
        if self.typing:
            return f"only rows with: {self.only}_   Enter keep  Esc all"
        only = f" ({self.only})" if self.only else ""
        pause = "go on" if self.paused else "pause"
        return f"h help  q quit  s sort ({self.sort})  r reverse  p {pause}  / only{only}"

    def _draw(self, live: Live) -> None:
        if self.helping:
            live.update(Text(KEYS), refresh=True)
            return
        if self._shown is None:
            return
        view = TopView(
            counts=self._shown.total if self._cumulative else self._shown.counts,
            total=self._shown.total,
            failures=tuple(self._failures),
            stuck=self._shown.stuck,
            sort=self.sort,
            reverse=self.reverse,
            who=self._who,
            totals=self._cumulative,
            full_screen=True,
            hint=self._hint(),
            only=self.only,
        )
        live.update(view, refresh=True)
