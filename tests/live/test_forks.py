"""A process that traces forks: its hooks are its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.live.guest import Backend, Options, run
from tracer.session import Session

pytestmark = pytest.mark.native


def holders(pid: int) -> list[str]:
    """What a process has open that keeps hooks on."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the directory itself, of our own
            found.append(str(entry.readlink()))
    return [name for name in found if "link" in name or "perf_event" in name or "raw-tracepoint" in name]


@contextmanager
def forked() -> Iterator[int]:
    """A child that Python forked, and that lasts; it has closed what it does not need by now."""
    reader, writer = os.pipe()
    if not (child := os.fork()):
        try:
            os.write(writer, b".")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(reader, 1) == b"."
    os.close(reader)
    os.close(writer)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_child_holds_no_hook_and_the_end_does_not_wait_for_it() -> None:
    with Session(Options(Backend.TRACEPOINT)) as session:
        assert holders(os.getpid())
        with forked() as child:
            assert holders(child) == []
            run("sh", "-c", "(kill -BUS $(sh -c 'echo $PPID')); true")
            assert [failure.comm for failure in session.failures(60)] == ["sh"]
            session.finish()
            assert holders(os.getpid()) == []


def test_a_child_may_end_its_copy_of_a_session() -> None:
    with Session(Options(Backend.TRACEPOINT)) as session:
        if not (child := os.fork()):
            try:
                session.finish()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        run("sh", "-c", "(kill -BUS $(sh -c 'echo $PPID')); true")
        assert [failure.comm for failure in session.failures(60)] == ["sh"]
