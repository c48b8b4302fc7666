"""More kinds of failures than the kernel keeps count of: one that it forgot is counted all the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.live.guest import Backend, Options
from tracer.diagnosis.explainer import Explainer
from tracer.session import Session

pytestmark = pytest.mark.native
#: Processes that each die of a SIGBUS of their own, 500 for each line; the kernel keeps count of 4,096 kinds.
OTHERS = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for _ in sys.stdin:
    for _ in range(500):
        if not (pid := os.fork()):
            os.kill(os.getpid(), 7)
        os.waitpid(pid, 0)
    print(flush=True)
"""
AGAIN = "import os, signal; signal.signal(7, signal.SIG_IGN)\nwhile input(): os.kill(os.getpid(), 7); print(flush=True)"


def test_a_kind_that_had_to_make_room_is_counted_when_it_comes_again() -> None:
    with Session(Options(Backend.TRACEPOINT)) as session:
        explainer, explained = Explainer(session.has_ended), 0
        repeated: list[tuple[int, int]] = []
        process = subprocess.Popen(
            [sys.executable, "-c", AGAIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        others = subprocess.Popen(
            [sys.executable, "-S", "-c", OTHERS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert process.stdin and process.stdout and others.stdin and others.stdout

        def fails(times: int) -> None:
            nonlocal explained
            for _ in range(times):
                print("x", file=process.stdin)
                assert process.stdout and process.stdout.readline()
            found = [failure for failure in session.failures() if failure.pid == process.pid]
            explained += len(list(explainer.explain(found)))
            repeated.extend((more.count, more.total) for more in explainer.repeats(session.bursts()))

        fails(3)
        # Which kinds make room is the kernel's choice, roughly the oldest first.
        while [burst for burst in session.bursts() if burst.tgid == process.pid]:
            print("x", file=others.stdin)
            assert others.stdout.readline() == "\n"
            session.failures()  # a batch has died: the ring has room for a thousand
        others.stdin.close()
        assert others.wait() == 0
        fails(2)
        process.communicate("\n")
    assert (explained, repeated) == (1, [(2, 3), (2, 5)])
