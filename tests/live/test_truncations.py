"""Who is blamed for a page beyond the end: who cut it off, not who cut the file elsewhere, or tried to."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.live.guest import Backend, Filters, Options
from tracer.diagnosis.diagnose import diagnose
from tracer.model.failures import Failure
from tracer.model.host_state import HostState
from tracer.session import Session

PAGE = 4096
#: A file of memory is cut by one process after the other (to how many pages; None: it may not be any more), then grows
#: (to so many pages, 0: not), and a page is read that is beyond its end. Each prints its pid before.
VICTIM = """
import ctypes, fcntl, os, sys
size, cuts, grown, page = int(sys.argv[1]), eval(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
file = os.memfd_create("cut", os.MFD_ALLOW_SEALING)
os.ftruncate(file, size * 4096)
mmap = ctypes.CDLL(None).mmap
mmap.restype, mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
memory = mmap(None, 64 * 4096, 1, 1, file, 0)  # readable, shared
for to in cuts:
    if to is None:
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    elif not (child := os.fork()):
        try:
            os.ftruncate(file, to * 4096)
        except PermissionError:
            pass
        os._exit(0)
    else:
        os.waitpid(child, 0)
        print(child, flush=True)
if grown:
    os.ftruncate(file, grown * 4096)
ctypes.string_at(memory + page * 4096, 1)
"""
#: What the file has at first, the cuts, to what it grows, the page; which cut is blamed, and its sizes.
CASES = {
    "the last cut": (8, [5, 3], 0, 4, 1, (5, 3)),
    "never so large": (8, [2], 0, 40, None, (8, 2)),
    "grown since": (8, [0], 6, 7, 0, (8, 0)),
    "refused": (8, [3, None, 1], 0, 5, 0, (8, 3)),
    "refused twice": (8, [3, None, 1, 2], 0, 5, 0, (8, 3)),
    "refused alone": (8, [None, 1], 0, 40, None, None),
}


def death(case: str, session: Session) -> tuple[Failure, list[int]]:
    """The failure of a case, and who cut, or tried to."""
    size, cuts, grown, page, *_ = CASES[case]
    process = subprocess.run(
        [sys.executable, "-S", "-c", VICTIM, *map(str, (size, cuts, grown, page))],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert process.returncode == -7
    (failure,) = session.failures(60)
    return failure, [int(line) for line in process.stdout.split()]


def test_who_cut_a_page_off_is_blamed_and_nobody_else(backend: Backend) -> None:
    with Session(Options(backend, Filters(fs=("tmpfs",)))) as session:
        died = {case: death(case, session) for case in CASES}
    for case, (failure, pids) in died.items():
        *_, page, blamed, sizes = CASES[case]
        cut = failure.truncation
        assert failure.offset == page * PAGE, case
        assert (cut and (cut.from_size, cut.size)) == (sizes and (sizes[0] * PAGE, sizes[1] * PAGE)), case
        cause = diagnose(failure, HostState()).cause
        assert [pid for pid in pids if f"[{pid}] had cut it" in cause] == ([] if blamed is None else [pids[blamed]])


@pytest.mark.nightly
def test_what_one_process_cuts_off_bit_by_bit_is_all_its_own(backend: Backend) -> None:
    script = VICTIM.replace("elif not (child := os.fork())", "elif False").replace("os._exit(0)", "pass")
    script = script.replace("os.waitpid(child, 0)", "os.ftruncate(file, to * 4096)").replace("child,", "os.getpid(),")
    with Session(Options(backend, Filters(fs=("tmpfs",)))) as session:
        process = subprocess.Popen([sys.executable, "-S", "-c", script, "8", "[6, 4, 2]", "0", "7"])
        assert process.wait() == -7
        (failure,) = session.failures(60)
    assert failure.truncation is not None
    assert (failure.truncation.from_size, failure.truncation.size) == (8 * PAGE, 2 * PAGE)
    assert failure.truncation.by.pid == process.pid
