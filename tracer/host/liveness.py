"""Which processes and cgroups are gone, so that nothing can be counted under their numbers any more."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tracer.host.cgroups import Cgroups
from tracer.host.processes import host_pids
from tracer.model.failures import PID
from tracer.model.options import By

IsGone = Callable[[int], bool]

#: The initial time namespace (PROC_TIME_INIT_INO, include/linux/proc_ns.h).
_INIT_TIME: Final = Path("time:[4026531834]")
#: USER_HZ (include/asm-generic/param.h), in which /proc/PID/stat has the start of a process.
_TICK_NS: Final = 10_000_000
#: The root of a hierarchy (kernfs_create_root in fs/kernfs/dir.c).
_ROOT_INODE: Final = 1


def gone_in(by: By | None, cgroups: Cgroups) -> Callable[[], IsGone] | None:
    """Return what makes a test for a moment; None where what is gone cannot be told, for files above all."""
    if by is By.PROCESS and host_pids():
        return lambda: _process_is_gone
    if by is By.CGROUP and cgroups.root is not None and cgroups.root.stat().st_ino == _ROOT_INODE:
        return lambda: _not_in(cgroups.ids())
    return None


def _process_is_gone(process: int) -> bool:
    """Also where /proc does not show others' processes."""
    try:
        os.kill(process & PID, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return reused(process)


def reused(process: int) -> bool:
    """Whether another process is seen to have its pid by now: ``process`` as process_of (bpf/series.h) has it."""
    try:
        if Path("/proc/self/ns/time").readlink() != _INIT_TIME:
            return False  # /proc would shift what it tells
        ticks = int(Path(f"/proc/{process & PID}/stat").read_bytes().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return False
    return ((process >> 32) - (ticks * _TICK_NS >> 16)) & 0xFFFFFFFF > (_TICK_NS >> 16) + 1


def _not_in(present: set[int] | None) -> IsGone:
    return lambda number: present is not None and number not in present
