"""What an option becomes in the programs: settings in their code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tracer.model.options import By, Options
from tracer.probes.abi import Setting, Want
from tracer.probes.selection import Wanted

_ON_TASK: Final = (Want.PID, Want.COMM, Want.CGROUP)


def settings(
    options: Options, wanted: Sequence[Wanted], *, cpus: int, cells: int, raced: bool, handlers: bool
) -> dict[int, int]:
    """Return what one session sets for all its programs, by ``Setting``.

    ``cpus`` are the possible ones, ``cells`` the front cells of each; ``raced``: fault_dirty_shared_page is hooked;
    ``handlers``: the handlers are, not the core.
    """
    kinds = {one.kind for one in wanted}
    want_task = sum(1 << kind for kind in kinds if kind in _ON_TASK)
    want_call = sum(1 << kind for kind in kinds if kind not in _ON_TASK)
    by = 0 if options.by is None else list(By).index(options.by) + 1
    return {
        Setting.TELL_RACED: int(raced),
        Setting.CPUS: cpus,
        Setting.FRONT_MASK: cells - 1,
        # 0 stands for none, and no call takes less than 1 ns
        Setting.SLOWER_NS: 0 if options.slower_ns is None else max(options.slower_ns, 1),
        Setting.WANT_TASK: want_task,
        Setting.EXTRAS: int(bool(want_call or by or handlers)),
        Setting.WANT_CALL: want_call,
        Setting.BY: by,
        Setting.NAME_SERIES: int(options.by in (By.PROCESS, By.FILE)),
        Setting.HANDLER_HOOKS: int(handlers),
    }
