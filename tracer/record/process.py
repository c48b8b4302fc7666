"""The writer's process, as the tracer has it: it begins, tells how it is, and ends."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from tracer.errors import Exit, MkwriteError, UsageError
from tracer.record.feed import Feed
from tracer.record.store import LEAST_SIZE, Limits

_log = logging.getLogger(__name__)

#: How long the writer may take to begin, and to write the rest when the tracer ends: the disk may be frozen.
_BEGIN_S: Final = 60.0
_END_S: Final = 10.0
#: Bytes that the pipe to the writer holds.
_PIPE: Final = 1 << 20
_ROOT: Final = Path(__file__).resolve().parents[2]
#: Isolated, so that nothing of the environment gets into it.
_MAIN: Final = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from tracer.record.writing import main
sys.exit(main(*sys.argv[1:]))
"""


def writer(directory: Path, size: int, age_s: int) -> Writer:
    """Begin to write to a directory. Raises MkwriteError."""
    if size < LEAST_SIZE:
        raise UsageError(
            f"A record of {size} bytes is too small.", f"Give it {LEAST_SIZE >> 20}M or more: --record-size."
        )
    return Writer(directory, Limits(size, age_s))


class Writer:
    """The process that writes to ``directory``. Raises MkwriteError where it cannot begin to."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        command = [sys.executable, "-I", "-c", _MAIN, str(_ROOT), str(directory), *map(str, limits)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env={})
        assert self._process.stdin and self._process.stdout
        self.fd = self._process.stdin.fileno()
        self._told_fd = self._process.stdout.fileno()
        with suppress(OSError):  # else it holds less
            fcntl.fcntl(self.fd, fcntl.F_SETPIPE_SZ, _PIPE)
        self._rest = b""
        self.status: dict[str, Any] = {}
        self.alive = True
        told = next(self._told(_BEGIN_S), None)
        if told is None or "problem" in told:
            self._process.kill()
            self._process.wait()
            told = told or {"problem": "The record's writer does not begin.", "cure": "Look at its disk: --record."}
            raise MkwriteError(told["problem"], told["cure"], Exit(told.get("code", Exit.FAILED)))

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(0.0)

    def listen(self, feed: Feed) -> None:
        """Take in what it tells of itself, and whether it is there."""
        if feed.broken and self.alive:
            self.alive = False
            _log.warning("The record's writer has ended; nothing is recorded until the exporter is started again.")
        for told in self._told(0.0):
            failed = told["errno"]
            if failed and failed != self.status.get("errno"):
                _log.warning("The record cannot be written: %s. It is kept in memory.", os.strerror(failed))
            elif not failed and self.status.get("errno"):
                _log.warning("The record is written again.")
            self.status = told

    def end(self, feed: Feed) -> None:
        """Have it write the rest, and end."""
        until = time.monotonic() + _END_S
        while not feed.empty and not feed.broken and (left := until - time.monotonic()) > 0:
            select.select([], [self.fd], [], left)
            feed.pump()
        if not self.alive:
            return
        if not feed.empty or not self._end(max(0.0, until - time.monotonic())):
            _log.warning("The last of the record could not be written in time.")

    def _end(self, seconds: float) -> bool:
        """Close its input, and wait for it; whether it had written all."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            return self._process.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()  # a disk that is frozen keeps it until it thaws
            return False

    def _told(self, seconds: float) -> Iterator[dict[str, Any]]:
        """Yield what it tells within that time, to the first that comes."""
        if not select.select([self._told_fd], [], [], seconds)[0]:
            return
        *lines, self._rest = (self._rest + os.read(self._told_fd, 1 << 16)).split(b"\n")
        yield from map(json.loads, lines)
