"""From the tracer to the writer's process: a bounded queue that never waits, and a pipe.

A disk that is full or frozen stops the writer alone. What comes meanwhile is kept here; when that is too much,
neighbouring minutes become one, whose sums are exact, and of reports the first are kept. What had to go is counted, and
told in a ``gap``.
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
#: Bytes of reports that are kept.
_REPORTS: Final = 4 << 20


class Feed:
    """Frames on their way to the file descriptor ``fd``, which is made not to block."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._going = b""
        self._minutes: deque[Minute] = deque()
        self._reports: deque[bytes] = deque()
        self._report_bytes = 0
        self._gap_from_ns = 0
        self._gap: Counter[str] = Counter()
        #: How many frames were dropped, by kind, and how many minutes were told with the one before.
        self.dropped: Counter[str] = Counter()
        self.merged = 0
        #: Whether the writer has ended before the tracer.
        self.broken = False

    @property
    def empty(self) -> bool:
        """Whether everything is on its way."""
        return not (self._going or self._reports or self._minutes or self._gap)

    def minute(self, minute: Minute) -> None:
        """Queue a minute."""
        self._minutes.append(minute)
        while len(self._minutes) > 1 and self._too_many():
            first, second = self._minutes.popleft(), self._minutes.popleft()
            self._minutes.appendleft(first + second)
            self.merged += 1
        self.pump()

    def report(self, report: Mapping[str, Any]) -> None:
        """Queue a frame of another kind."""
        line = _line(report)
        if self._report_bytes + len(line) > _REPORTS:
            self._drop(report["kind"], time.time_ns())
        else:
            self._reports.append(line)
            self._report_bytes += len(line)
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
            self._going = self._reports.popleft()
            self._report_bytes -= len(self._going)
        elif self._minutes:
            self._going = _line(frame(self._minutes.popleft()))
        elif self._gap:
            gap = {"kind": "gap", "from_ns": self._gap_from_ns, "time_ns": time.time_ns(), "errno": None}
            self._going = _line({**gap, "dropped": dict(self._gap)})
            self._gap.clear()
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
