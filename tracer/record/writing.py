"""The process that writes the record: frames come by a pipe, and it alone waits for the disk.

``main`` is run with a frame of JSON on each line of the standard input, and tells on the standard output what has
become of them, or why nothing can be written. It has no right but that of the directory's owner, and ends when the
tracer has.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tracer.errors import MkwriteError
from tracer.host.privileges import keep
from tracer.record.segments import Directory
from tracer.record.store import Limits, Store

#: How soon what could not be written is tried again.
_AGAIN_S: Final = 1.0
#: How long it is tried once the tracer has ended.
_LAST_S: Final = 5.0
#: A write that takes longer is told: what came meanwhile had to wait in memory.
_LONG_NS: Final = 5_000_000_000
_READ: Final = 1 << 16


class Given(Exception):
    """What could not be written when the tracer had ended."""


def frames(fd: int) -> Iterator[dict[str, Any] | None]:
    """Frames as they come; None whenever all that has come was taken."""
    rest = b""
    while chunk := os.read(fd, _READ):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from map(json.loads, lines)
        if lines and not select.select([fd], [], [], 0)[0]:
            yield None


class Writer:
    """Writes frames, each until it is written."""

    def __init__(self, store: Store, given: Iterator[dict[str, Any] | None], source: int, status: int) -> None:
        """``given`` are the frames that come by ``source``."""
        self._store = store
        self._given = given
        self._source = source
        self._status = status
        self._written = 0
        self._last_ns = 0
        self._errno = 0

    def run(self) -> None:
        """Write all frames to the end of the tracer, which a last line tells of, and whether it came in good order."""
        clean = False
        for frame in self._given:
            if frame is None:
                self._attempt(self._store.sync)
                self._tell()
                continue
            clean = frame["kind"] == "end"
            self._append(frame)
        if not clean:
            self._append({"kind": "end", "time_ns": time.time_ns(), "clean": False})
        self._attempt(self._store.sync)
        self._tell()
        self._store.close()

    def _append(self, frame: Mapping[str, Any]) -> None:
        """Write a frame; if that took long or failed meanwhile, tell of it behind the frame."""
        began_ns, long_ns = time.time_ns(), time.monotonic_ns() + _LONG_NS
        self._attempt(lambda: self._store.append(frame))
        self._written += 1
        self._last_ns = time.time_ns()
        failed, self._errno = self._errno, 0
        if failed or time.monotonic_ns() > long_ns:
            why = errno.errorcode.get(failed, str(failed)) if failed else None
            gap = {"kind": "gap", "from_ns": began_ns, "time_ns": time.time_ns(), "errno": why, "dropped": {}}
            self._attempt(lambda: self._store.append(gap))
            self._errno = 0
            self._tell()

    def _attempt(self, act: Callable[[], object]) -> None:
        """Do it until it is done, or the tracer has ended and it is not to be done."""
        last = 0.0
        while True:
            try:
                act()
                return
            except OSError as error:
                self._errno = error.errno or errno.EIO
                self._tell()
            if self._ended():
                last = last or time.monotonic() + _LAST_S
                if time.monotonic() > last:
                    raise Given
            time.sleep(_AGAIN_S)

    def _ended(self) -> bool:
        poll = select.poll()
        poll.register(self._source, 0)
        return bool(poll.poll(0))

    def _tell(self) -> None:
        try:
            size = self._store.size()
        except OSError:
            size = None
        told = {"written": self._written, "size": size, "last_ns": self._last_ns, "errno": self._errno}
        _say(self._status, told)


def _say(fd: int, told: Mapping[str, object]) -> None:
    """Tell the tracer, if it listens: the next one says the same, and more."""
    try:
        os.write(fd, json.dumps(told).encode() + b"\n")
    except (BlockingIOError, BrokenPipeError):
        return


def _become(owner: tuple[int, int]) -> None:
    """Be who the directory belongs to, and nothing more."""
    uid, gid = owner
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    keep(())


def main(directory: str, size: str, age_s: str) -> int:
    """Write until the standard input ends; the exit code is 1 where something could not be written."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they are for the tracer, whose end is this one's
    os.set_blocking(1, False)
    source = frames(0)
    try:
        opened = Directory(Path(directory), writing=True)
    except MkwriteError as error:
        _say(1, {"problem": error.problem, "cure": error.cure, "code": int(error.code)})
        return 1
    _become(opened.owner)
    _say(1, {"ready": True})
    first = next(source, None)
    if first is None:
        return 0
    del first["kind"]
    try:
        Writer(Store(opened, Limits(int(size), int(age_s)), first), source, 0, 1).run()
    except Given:
        return 1
    return 0
