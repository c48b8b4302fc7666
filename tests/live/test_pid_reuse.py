"""A pid that another process gets is another process: its failures are its own, and have its name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.live.guest import Backend, Options
from tracer.model.options import By
from tracer.session import Session

pytestmark = pytest.mark.native
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")
#: What each says it is before it sends itself SIGBUS, and how often.
NAMES = {"first": 2, "second": 3}


def started(name: str, pid: int = 0) -> subprocess.Popen[bytes]:
    """A process of this name that waits for a line, then sends itself as many signals; with this pid, if one is told.

    Others take pids meanwhile: until it has the wanted one, it is ended and started again.
    """
    script = f'printf {name} > /proc/self/comm; trap "" BUS; read line; for i in $1; do kill -BUS $$; done'
    while True:
        if pid:
            LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(
            ["sh", "-c", script, "sh", "x " * NAMES[name]], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        if pid in (0, process.pid):
            return process
        process.communicate()


def test_the_next_process_with_a_pid_has_its_own_name_and_count() -> None:
    with Session(Options(Backend.TRACEPOINT, by=By.PROCESS)) as session:
        pid = 0
        for name in NAMES:
            process = started(name, pid)
            pid = process.pid
            process.communicate(b"\n")
        ours = {f"{name}[{pid}]": number for name, number in NAMES.items()}
        counts = session.snapshot().failures
        assert {s.who: number for s, number in counts.items() if s.who.endswith(f"[{pid}]")} == ours
        bursts = [number for burst, number in session.bursts().items() if burst.tgid == pid]
        told = [(failure.comm, failure.ordinal) for failure in session.failures() if failure.pid == pid]
    assert sorted(bursts) == sorted(NAMES.values())
    assert told == [(name, ordinal) for name, number in NAMES.items() for ordinal in range(1, number + 1)]
