"""The time that a task sleeps, by the programs' own code (bpf/sleep.h), where each CPU has a clock of its own.

A kernel that keeps stolen time apart (CONFIG_PARAVIRT_TIME_ACCOUNTING), as that of a virtual machine may, has on each
CPU a clock_task that lacks what was stolen there. Debian's kernels have the same everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tracer.kernel.btf import FIELDS, Btf, header
from tracer.model.hooks import Backend
from tracer.probes import program
from tracer.probes.attach import attach_raw_tracepoint
from tracer.probes.build import build, text
from tracer.probes.entries import entries
from tracer.probes.program import c_type

pytestmark = pytest.mark.native

#: So many sections of a process, each between two marks: it sleeps for so many us, goes on once it was moved, or at
#: once, and sleeps again.
PROCESS = """
import ctypes, json, os, resource, sys, time
libc, (number, sleep_us, moved) = ctypes.CDLL(None), map(int, sys.argv[1:])
schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
ready = lambda: int(os.pread(schedstat, 99, 0).split()[1])
switches = lambda: resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
measured = []
for section in range(number):
    before, delayed = switches(), ready()
    busy, began = time.thread_time_ns(), time.monotonic_ns()
    libc.prctl(0x6d6b7701, section)
    if sleep_us:
        libc.usleep(sleep_us)
    cpu = libc.sched_getcpu()
    os.write(1, b".")
    while moved and libc.sched_getcpu() == cpu:
        pass
    if sleep_us:
        libc.usleep(sleep_us)
    libc.prctl(0x6d6b7702, section)
    took, busy = time.monotonic_ns() - began, time.thread_time_ns() - busy
    measured.append((took, busy, ready() - delayed, switches() - before))
json.dump(measured, sys.stderr)
"""


@dataclass(frozen=True, slots=True)
class Section:
    """What the programs found, and the process itself, around that; times in ns, and voluntary switches."""

    passed: int
    slept: int
    took: int
    busy: int
    ready: int
    switches: int


def sections(number: int, sleep_us: int, *, moved: bool) -> list[Section]:
    """Let a process go through sections; ``moved``: to the other CPU in each, by us."""
    with Btf() as btf:
        layout = header(btf, FIELDS)
    c = Path(__file__).with_name("sleep_marks.bpf.c").read_text()
    bpf = build(text(layout, Backend.TRACEPOINT, ("config.h", "kfunc.h", "read.h", "sleep.h")) + c)
    maps = program.create_maps(bpf.maps)
    descriptors = [*maps.values()]
    try:
        descriptors.append(program.load(bpf, "marked", maps, program.RAW_TRACEPOINT))
        descriptors.append(attach_raw_tracepoint(descriptors[-1], "sys_enter"))
        measured = _go_through(number, sleep_us, moved)
        kind = c_type(bpf.maps["sections"].value)
        found = [kind.from_buffer_copy(value) for _, value in entries(bpf.maps["sections"], maps["sections"])]
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return [Section(one.passed_ns, one.slept_ns, *own) for one, own in zip(found, measured, strict=False)]


def _go_through(number: int, sleep_us: int, moved: bool) -> list[list[int]]:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    line = ["/usr/bin/python3", "-c", PROCESS, str(number), str(sleep_us), str(int(moved))]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if moved:
            os.sched_setaffinity(process.pid, {first})
        for section in range(number):
            assert process.stdout.read(1) == b"."
            if moved:
                os.sched_setaffinity(process.pid, {first if section % 2 else second})
        said = process.stderr.read()
        assert process.wait() == 0, said
    found: list[list[int]] = json.loads(said)
    return found


@pytest.mark.parametrize("moved", [False, True], ids=["stays", "moved"])
def test_a_task_that_never_sleeps_has_slept_for_0_ns(moved: bool) -> None:
    found = [section for section in sections(1000, 0, moved=moved) if not section.switches]
    assert found  # the others are those in which the process waited for the test
    assert [section.slept for section in found] == [0] * len(found)


@pytest.mark.parametrize("moved", [False, True], ids=["stays", "moved"])
def test_a_task_that_sleeps_is_told_what_it_slept(moved: bool) -> None:
    each_us = 1500
    before = _stolen()
    # A timer that ends before its task is off the CPU lets it go on: such a section is none.
    found = [section for section in sections(300, each_us, moved=moved) if section.switches >= 2]
    stolen = _stolen() - before
    assert found
    assert all(0 < section.slept <= section.passed <= section.took for section in found)
    # The rest of the time it ran, was ready to, or was robbed of its CPU.
    slept = sum(section.slept for section in found)
    rest = sum(section.took - section.busy - section.ready for section in found)
    assert abs(slept - rest) <= stolen + sum(section.took for section in found) // 100


def _stolen() -> int:
    """What was stolen from all CPUs so far, in ns, rounded up to ticks."""
    stat = Path("/proc/stat").read_text().splitlines()
    return sum(int(line.split()[8]) + 1 for line in stat if line.startswith("cpu") and line[3] != " ") * 10_000_000
