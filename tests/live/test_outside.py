"""Handlers that belong to no mounted filesystem are told under their own names, and no view misses a mount point."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import struct
import urllib.request
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.live.guest import BACKENDS, NO_LOSS, ended, lost, running, said, tracing
from tracer.model.calls import FaultPath, Initiator, Outcome
from tracer.model.hooks import Backend
from tracer.model.options import Filters, Options
from tracer.model.snapshot import Snapshot
from tracer.session import Session

PERF, RINGS = 5, 3
RELEASE = tuple(map(int, os.uname().release.split(".")[:2]))
#: From 6.18 on perf maps its buffers by PFN, and has a pfn_mkwrite of its own (perf_mmap_pfn_mkwrite).
PERF_ASKS = RELEASE < (6, 18)

_LIBC = ctypes.CDLL(None, use_errno=True)
# arch/x86/entry/syscalls/syscall_64.tbl
_PERF_EVENT_OPEN, _IO_SETUP, _IO_DESTROY = 298, 206, 207


def perf_buffer() -> None:
    """Write to the head page of a perf buffer, which is where a reader says how far it got."""
    attr = struct.pack("<IIQ", 1, 112, 0) + bytes(96)  # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_CPU_CLOCK
    event = _LIBC.syscall(_PERF_EVENT_OPEN, attr, 0, -1, -1, 0)
    assert event >= 0, os.strerror(ctypes.get_errno())
    try:
        with mmap.mmap(event, 2 * mmap.PAGESIZE) as memory:
            memory[1032] = 0  # struct perf_event_mmap_page's data_tail
    finally:
        os.close(event)


def aio_ring() -> None:
    """Write to the ring of asynchronous I/O: a file that no name leads to, on a filesystem that is mounted nowhere."""
    context = ctypes.c_ulong(0)
    assert _LIBC.syscall(_IO_SETUP, 8, ctypes.byref(context)) == 0, os.strerror(ctypes.get_errno())
    ctypes.memset(context.value + 8, 0, 4)  # struct aio_ring's head
    assert _LIBC.syscall(_IO_DESTROY, context) == 0


def make_calls() -> None:
    """As many of each as expected."""
    for number, write in ((PERF, perf_buffer), (RINGS, aio_ring)):
        for _ in range(number):
            write()


#: By handler: type of the filesystem, and calls.
EXPECTED = {"filemap_page_mkwrite": ("aio", RINGS)} | ({"perf_mmap_fault": ("anon_inodefs", PERF)} if PERF_ASKS else {})


@pytest.fixture(scope="module")
def counted() -> dict[Backend, Snapshot]:
    found = {}
    for backend in BACKENDS:
        with Session(Options(backend=backend, filters=Filters(pids=(os.getpid(),)), failures=False)) as session:
            make_calls()
            found[backend] = session.finish()
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_they_are_counted_under_their_own_names(counted: dict[Backend, Snapshot], backend: Backend) -> None:
    final = counted[backend]
    assert lost(final) == NO_LOSS
    told: Counter[tuple[str, str, str, FaultPath, Outcome, Initiator]] = Counter()
    for series, calls in final.calls.items():
        if series.fstype in ("aio", "anon_inodefs"):
            key = (series.handler, series.fstype, series.mountpoint, series.path, series.outcome, series.initiator)
            told[key] += calls.count
    assert told == {
        (handler, fstype, "", FaultPath.FIRST_WRITE, Outcome.WRITABLE, Initiator.USER): number
        for handler, (fstype, number) in EXPECTED.items()
    }


#: This process's calls alone.
MINE = ("--pid", str(os.getpid()))


@pytest.mark.nightly
def test_count_has_a_row_of_each() -> None:
    with tracing("count", *MINE) as process:
        make_calls()
        rows = [line.split() for line in ended(process).splitlines()]
    for handler, (fstype, number) in EXPECTED.items():
        (row,) = (row for row in rows if fstype in row)
        assert handler in row and row[-1] == str(number)


@pytest.mark.nightly
def test_trace_tells_each_with_the_name_that_its_file_has() -> None:
    with tracing("trace", "--json", "--slower", "0", *MINE) as process:
        make_calls()
        lines = [json.loads(line) for line in ended(process).splitlines()]
    told = Counter((line["handler"], line["fstype"], line["mountpoint"]) for line in lines if not line["mountpoint"])
    assert told == {(handler, fstype, ""): number for handler, (fstype, number) in EXPECTED.items()}


@pytest.mark.nightly
def test_hist_draws_one_of_each() -> None:
    with tracing("hist", "--json", *MINE) as process:
        make_calls()
        calls = json.loads(ended(process))["calls"]
    told = {(call["handler"], call["fstype"]): call["latency"]["count"] for call in calls if not call["mountpoint"]}
    assert told == {(handler, fstype): number for handler, (fstype, number) in EXPECTED.items()}


@pytest.mark.nightly
def test_the_exporter_has_them_with_an_empty_mount_point() -> None:
    with running("export", "--listen", "127.0.0.1:0", *MINE) as process:
        address = said(process, "mkwrite: listening on ").split()[-1]
        make_calls()
        with urllib.request.urlopen(address, timeout=120) as response:
            text = response.read().decode()
        with urllib.request.urlopen(address.removesuffix("metrics"), timeout=120) as response:
            page = response.read().decode()
        ended(process)
    told = {
        (sample.labels["handler"], sample.labels["fstype"]): sample.value
        for family in parse(text)
        for sample in family.samples
        if sample.name == "mkwrite_calls_total" and not sample.labels["mountpoint"]
    }
    assert told == {(handler, fstype): number for handler, (fstype, number) in EXPECTED.items()}
    assert "mkwrite on" in page
