"""Which processes and cgroups are gone, so that nothing can be counted under their numbers any more."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from tracer.host.cgroups import Cgroups
from tracer.host.mounts import Mounts
from tracer.host.processes import host_pids
from tracer.model.options import By

IsGone = Callable[[int], bool]

#: The root of a hierarchy (kernfs_create_root in fs/kernfs/dir.c).
_ROOT_INODE: Final = 1


def gone_in(by: By | None, mounts: Mounts) -> Callable[[], IsGone] | None:
    """What makes a test for a moment; None where what is gone cannot be told, for files above all."""
    if by is By.PROCESS and host_pids():
        return lambda: _process_is_gone
    if by is By.CGROUP:
        cgroups = Cgroups(mounts)
        if cgroups.root is not None and cgroups.root.stat().st_ino == _ROOT_INODE:
            return lambda: _not_in(cgroups.ids())
    return None


def _process_is_gone(pid: int) -> bool:
    """Also where /proc does not show others' processes."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _not_in(present: set[int] | None) -> IsGone:
    return lambda number: present is not None and number not in present
