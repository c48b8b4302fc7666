"""``top`` on a terminal: the alternate screen, and keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.live import Live

from tracer.cli.keys import Keys
from tracer.cli.run import Interval, Pause, Stop
from tracer.cli.suspend import suspendable
from tracer.model.failures import Failure
from tracer.ui.calls import SORTS
from tracer.ui.top import LAST_FAILURES, TopView


class LiveTop:
    """The screen and what its keys change."""

    def __init__(self, stop: Stop, sort: str, cumulative: bool, who: str) -> None:
        self._stop = stop
        self.sort = sort
        self.reverse = False
        self.paused = False
        self._cumulative = cumulative
        self._who = who
        self._shown: Interval | None = None
        self._failures: deque[Failure] = deque(maxlen=LAST_FAILURES)

    def run(self, console: Console, ticks: Callable[[Pause], Iterator[Interval]]) -> None:
        """Show each interval of ``ticks(pause)`` until they end or a key ends it."""
        with Keys() as keys, Live(console=console, screen=True, auto_refresh=False) as live:

            def pause(seconds: float) -> None:
                pressed = keys.read(seconds)
                for key in pressed:
                    self.press(key)
                if pressed:
                    self._draw(live)

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
                for interval in ticks(pause):
                    self._failures.extend(interval.failures)
                    if not self.paused:
                        self._shown = interval
                        self._draw(live)

    def press(self, key: str) -> None:
        """What a key does; others do nothing."""
        if key == "q":
            self._stop.requested = True
        elif key == "s":
            names = list(SORTS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
        elif key == "r":
            self.reverse = not self.reverse
        elif key == "p":
            self.paused = not self.paused

    def _draw(self, live: Live) -> None:
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
            hint=f"q quit  s sort ({self.sort})  r reverse  p {'go on' if self.paused else 'pause'}",
        )
        live.update(view, refresh=True)
