"""Whether the kernel may preempt its own code: then it may preempt a BPF program too."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

#: Says what PREEMPT_DYNAMIC kernels do now: "none voluntary (full) lazy" (sched_dynamic_show, kernel/sched/debug.c).
MODE: Final = Path("/sys/kernel/debug/sched/preempt")


def preemptible(mode: Path = MODE, version: str | None = None) -> bool:
    """Whether kernel code may be preempted; True where that can change at run time and cannot be read."""
    try:
        chosen = re.search(r"\((\w+)\)", mode.read_text())
    except OSError:
        chosen = None
    if chosen is not None:
        return chosen[1] in ("full", "lazy")
    # "#1 SMP PREEMPT_DYNAMIC Debian ..." (scripts/mkcompile_h, init/Makefile)
    return "PREEMPT" in (os.uname().version if version is None else version).split("(")[0]


@cache
def _preempts() -> bool:
    return preemptible()


@contextmanager
def unpreempted() -> Iterator[None]:
    """For a moment, let no ordinary task preempt this thread.

    While bpf(2) reads a hash map, its CPU runs no kprobe programs (bpf_disable_instrumentation, include/linux/bpf.h;
    trace_call_bpf, kernel/trace/bpf_trace.c): those of whoever preempts the reader are skipped. Where real-time
    priority is not allowed, that can happen; what was skipped is counted as lost.
    """
    if not _preempts() or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        yield
        return
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


__all__ = ["MODE", "preemptible", "unpreempted"]
