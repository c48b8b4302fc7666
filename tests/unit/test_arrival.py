"""Who waits is woken by what comes, by what another thread took, and by the end; whatever descriptors there are."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tracer.probes.arrival import Arrival

#: Nothing waits for so long.
LONG_S = 600.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def woken(arrival: Arrival, cause: Callable[[], object]) -> bool:
    """Whether a thread that waits goes on once something has happened."""
    waits = threading.Event()

    def wait() -> None:
        with arrival.waiting() as wait_for:
            waits.set()
            wait_for(LONG_S)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert waits.wait(LONG_S)
    assert thread.is_alive()
    cause()
    thread.join(30)
    return not thread.is_alive()


def test_what_comes_wakes(pipe: tuple[int, int]) -> None:
    assert woken(Arrival([pipe[0]]), lambda: os.write(pipe[1], b"."))


def test_what_another_thread_took_wakes(pipe: tuple[int, int]) -> None:
    arrival = Arrival([pipe[0]])
    assert woken(arrival, arrival.wake)


def test_the_end_wakes_and_nobody_waits_after_it(pipe: tuple[int, int]) -> None:
    arrival = Arrival([pipe[0]])
    assert woken(arrival, arrival.end)
    with arrival.waiting() as wait:
        began = time.monotonic()
        wait(LONG_S)
    assert time.monotonic() - began < LONG_S / 2


def test_a_descriptor_above_1023_is_waited_for(pipe: tuple[int, int]) -> None:
    """select(2) knows no such numbers."""
    high = fcntl.fcntl(pipe[0], fcntl.F_DUPFD_CLOEXEC, 1024)
    try:
        assert woken(Arrival([high]), lambda: os.write(pipe[1], b"."))
    finally:
        os.close(high)


def test_who_was_woken_waits_again(pipe: tuple[int, int]) -> None:
    arrival = Arrival([pipe[0]])
    with arrival.waiting() as wait:
        arrival.wake()
        wait(LONG_S)
        began = time.monotonic()
        wait(0.05)
    assert time.monotonic() - began >= 0.05
