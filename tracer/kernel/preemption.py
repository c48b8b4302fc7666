"""Whether the kernel may preempt its own code: then it may preempt a BPF program too."""

from __future__ import annotations

import os
import re
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


__all__ = ["MODE", "preemptible"]
