"""Handlers outside of filesystems: calls on a mapping without a mount point are told like any other."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.live.guest import bpf_state, command, eventually

RINGS = 7
COMM = "ring-maker"
#: Maps perf's ring buffers and writes to the first page of each, where the reader's position stands.
RING_MAKER = f"""
import ctypes, mmap, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(15, b"{COMM}", 0, 0, 0)
# A software event that never comes: PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY.
attr = struct.pack("<IIQ", 1, 112, 9).ljust(112, bytes(1))
for _ in range({RINGS}):
    event = libc.syscall(298, attr, 0, -1, -1, 0)
    assert event >= 0, ctypes.get_errno()
    mmap.mmap(event, 2 * mmap.PAGESIZE)[1032:1040] = bytes(8)
"""
_PERF = "perf_mmap_fault"


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that traces the maker of the rings and has attached all its hooks; interrupted at the end."""
    before = bpf_state()[0]
    process = subprocess.Popen(
        command(*arguments, "--comm", COMM), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert eventually(lambda: len(bpf_state()[0] - before) >= 4, 120)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)


def test_perf_is_told_under_its_own_name_by_every_command() -> None:
    # Since 6.18 perf's pages have no struct page to be asked for: pfn_mkwrite is called (kernel/events/core.c).
    asked = RINGS if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 18) else 0
    with ExitStack() as stack:
        trace = stack.enter_context(started("trace", "--json", "--slower", "0"))
        top = stack.enter_context(started("top", "--json", "-i", "1s"))
        export = stack.enter_context(started("export", "--listen", "127.0.0.1:0"))
        count = command("count", "--comm", COMM, "--", sys.executable, "-c", RING_MAKER)
        shown = subprocess.run(count, capture_output=True, text=True, check=False)
        assert export.stderr is not None
        with urllib.request.urlopen(export.stderr.readline().split()[-1], timeout=30) as response:
            metrics = response.read().decode().splitlines()
    outputs = {process: process.communicate(timeout=60)[0] for process in (trace, top, export)}
    assert [process.returncode for process in outputs] == [0, 0, 0]
    assert shown.returncode == 0, shown.stderr
    rows = [line.split() for line in shown.stdout.splitlines() if _PERF in line]
    assert [int(row[-1]) for row in rows] == ([asked] if asked else [])
    events = [json.loads(line) for line in outputs[trace].splitlines()]
    assert [(event["handler"], event["mountpoint"]) for event in events] == [(_PERF, "")] * asked
    calls = [call for line in outputs[top].splitlines() for call in json.loads(line)["calls"]]
    assert sum(call["latency"]["count"] for call in calls) == asked
    assert {(call["handler"], call["mountpoint"]) for call in calls} == ({(_PERF, "")} if asked else set())
    found = [line for line in metrics if line.startswith("mkwrite_calls_total{") and _PERF in line]
    assert sum(float(line.split()[-1]) for line in found) == asked
    assert all('mountpoint=""' in line for line in found)
