"""Processes as the kernel's programs tell them apart."""

from __future__ import annotations

from pathlib import Path


def process_of(pid: int) -> int:
    """The pid, and above it when the process began, to 10 ms (proc_pid_stat(5)): process_of in bpf/series.h."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return (ticks * 10_000_000 >> 16 & 0xFFFFFFFF) << 32 | pid
