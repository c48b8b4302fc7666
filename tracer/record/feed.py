"""From the tracer to the writer's process: a bounded queue that never waits, and a pipe.

A disk that is full or frozen stops the writer alone. What comes meanwhile is kept here; when that is too much,
neighbouring minutes become one, whose sums are exact, and of reports and events the first are kept, each in room of
their own: no flood of events takes that of the reports. What had to go is counted, and told in a ``gap``.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

from tracer.record.minutes import Minute, frame

#: What is kept of minutes while the writer is stopped: so many series, 1 KiB each, or the last two.
_SERIES: Final = 4096
#: Minutes that wait are not told together before there are so many.
_MINUTES: Final = 60
#: Bytes that are kept of reports and what belongs to them, and of all other events.
_REPORTS: Final = 4 << 20
_EVENTS: Final = 1 << 20
_OF_REPORTS: Final = ("failure", "told", "forgotten", "repeated")


class _Lines:
    """Lines that wait, up to ``most`` bytes."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lines: deque[bytes] = deque()

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: bytes) -> bool:
        """Queue a line; whether there is room."""
        if len(line) > self._left:
            return False
        self._left -= len(line)
        self._lines.append(line)
        return True

    def take(self) -> bytes:
        """Take the first."""
        line = self._lines.popleft()
        self._left += len(line)
        return line


class Feed:
    """Frames on their way to the file descriptor ``fd``, which is made not to block."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._going = b""
        self._minutes: deque[Minute] = deque()
        self._reports = _Lines(_REPORTS)
        self._events = _Lines(_EVENTS)
        self._gap_from_ns = 0
        self._gap: Counter[str] = Counter()
        self._end: bytes = b""
        #: How many frames were dropped, by kind, and how many minutes were told with the one before.
        self.dropped: Counter[str] = Counter()
        self.merged = 0
        #: Whether the writer has ended before the tracer.
        self.broken = False

    @property
    def empty(self) -> bool:
        """Whether everything is on its way."""
        return not (self._going or self._reports or self._events or self._minutes or self._gap or self._end)

    def minute(self, minute: Minute) -> None:
        """Queue a minute."""
        self._minutes.append(minute)
        while len(self._minutes) > 1 and self._too_many():
            first, second = self._minutes.popleft(), self._minutes.popleft()
            self._minutes.appendleft(first + second)
            self.merged += 1
        self.pump()

    def event(self, frame: Mapping[str, Any]) -> None:
        """Queue a frame of another kind: a report, or what happened besides."""
        lines = self._reports if frame["kind"] in _OF_REPORTS else self._events
        if not lines.add(_line(frame)):
            self._drop(frame["kind"], time.time_ns())
        self.pump()

    def end(self, frame: Mapping[str, Any]) -> None:
        """Queue the last frame, behind all that waits."""
        self._end = _line(frame)
        self.pump()

    def pump(self) -> None:
        """Send what the pipe takes."""
        while not self.broken and (self._going or self._next()):
            try:
                self._going = self._going[os.write(self._fd, self._going) :]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.broken = True

    def _next(self) -> bool:
        """Take what is sent next: reports first."""
        if self._reports:
            self._going = self._reports.take()
        elif self._events:
            self._going = self._events.take()
        elif self._minutes:
            self._going = _line(frame(self._minutes.popleft()))
        elif self._gap:
            gap = {"kind": "gap", "from_ns": self._gap_from_ns, "time_ns": time.time_ns(), "errno": None}
            self._going = _line({**gap, "dropped": dict(self._gap)})
            self._gap.clear()
        else:
            self._going, self._end = self._end, b""
        return bool(self._going)

    def _too_many(self) -> bool:
        return len(self._minutes) > _MINUTES or sum(minute.series for minute in self._minutes) > _SERIES

    def _drop(self, kind: str, now_ns: int) -> None:
        if not self._gap:
            self._gap_from_ns = now_ns
        self._gap[kind] += 1
        self.dropped[kind] += 1


def _line(frame: Mapping[str, Any]) -> bytes:
    return json.dumps(frame, separators=(",", ":"), allow_nan=False).encode() + b"\n"
