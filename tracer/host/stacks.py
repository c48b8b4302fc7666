"""Kernel stacks of tasks, from /proc: where those that sleep in a page fault wait."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from tracer.host.processes import host_pids

_PROC: Final = Path("/proc")
#: bpf_image_ksym_add in kernel/bpf/trampoline.c.
_TRAMPOLINE: Final = "bpf_trampoline_"
#: Functions that page_mkwrite is called from, or that throttle after it.
_FAULT: Final = frozenset({"do_page_mkwrite", "fault_dirty_shared_page"})


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A task that sleeps in such a fault; ``stack`` has function names, the innermost first."""

    pid: int
    tid: int
    comm: str
    stack: tuple[str, ...]


def kernel_stack(pid: int, tid: int, proc: Path = _PROC) -> tuple[str, ...]:
    """Return the functions that a task is in, the innermost first; none if it runs, is gone, or may not be read."""
    try:
        return _stack(proc / str(pid) / "task" / str(tid))
    except OSError:
        return ()


def _stack(task: Path) -> tuple[str, ...]:
    lines = (task / "stack").read_text().splitlines()
    # "[<0>] percpu_rwsem_wait+0x116/0x140", and "[module]" behind those of modules
    names = (line.split("] ", 1)[-1].partition("+")[0].strip() for line in lines if "] " in line)
    # A hooked function is called from its trampoline, and that from the function.
    return tuple(name for name, _ in groupby(name for name in names if not name.startswith(_TRAMPOLINE)))


def host_stack(pid: int, tid: int) -> tuple[str, ...]:
    """Return the same by the host's pids, as programs tell them; none where /proc has another namespace's."""
    return kernel_stack(pid, tid) if host_pids() else ()


def readable(proc: Path = _PROC) -> bool:
    """Whether stacks of tasks can be read: that takes CAP_SYS_ADMIN (proc_pid_stack in fs/proc/base.c)."""
    try:
        (proc / "self" / "stack").read_text()
    except OSError:
        return False
    return True


def sleepers(proc: Path = _PROC) -> tuple[list[Sleeper], int]:
    """Every task that sleeps in page_mkwrite, or is throttled after it; and how many tasks' stacks may not be read."""
    found: list[Sleeper] = []
    refused = 0
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            for task in (process / "task").iterdir():
                try:
                    stack = _stack(task)
                except PermissionError:
                    refused += 1
                    continue
                except OSError:
                    continue  # gone
                if not _FAULT.isdisjoint(stack):
                    found.append(Sleeper(int(process.name), int(task.name), _comm(task), stack))
        except PermissionError:
            refused += 1
        except OSError:
            continue  # gone
    return found, refused


def _comm(task: Path) -> str:
    try:
        return (task / "comm").read_bytes().removesuffix(b"\n").decode("utf-8", "surrogateescape")
    except OSError:
        return "?"
