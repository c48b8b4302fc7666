"""A session that several threads use, and that ends while some of them wait."""

from __future__ import annotations

import fcntl
import os
import resource
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.live.guest import Backend, Options, run
from tracer.session import Session

pytestmark = pytest.mark.native
TRACEPOINT = Options(Backend.TRACEPOINT)
#: Descriptors that select(2) knows.
FD_SETSIZE = 1024


@pytest.fixture
def crowded() -> Iterator[None]:
    """As in a process that has many files open: the next descriptors are above those that select(2) knows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * FD_SETSIZE), hard))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    while taken[-1] < FD_SETSIZE:
        taken.append(fcntl.fcntl(taken[0], fcntl.F_DUPFD_CLOEXEC, 0))
    try:
        yield
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("crowded")
def test_failures_come_to_a_process_with_more_files_than_select_takes() -> None:
    with Session(TRACEPOINT) as session:
        assert session.failures(0.01) == []  # waits: nothing has come
        run("sh", "-c", "(kill -BUS $(sh -c 'echo $PPID')); true")
        assert [failure.comm for failure in session.failures(60)] == ["sh"]


@pytest.mark.parametrize(
    "ask", [lambda session: session.failures(600), lambda session: session.wait(600)], ids=["failures", "wait"]
)
def test_the_end_in_one_thread_wakes_the_others(ask: Callable[[Session], object]) -> None:
    with Session(TRACEPOINT) as session:
        threads = [threading.Thread(target=ask, args=(session,), daemon=True) for _ in range(7)]
        for thread in threads:
            thread.start()
        session.finish()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
