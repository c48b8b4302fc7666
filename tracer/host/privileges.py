"""Giving up capabilities that are not needed any more, see capabilities(7)."""

from __future__ import annotations

import ctypes as ct
import logging
import os
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

_log = logging.getLogger(__name__)

_CAPSET: Final = 126  # x86_64
_VERSION_3: Final = 0x20080522
_PR_CAPBSET_DROP: Final = 24


class Capability(IntEnum):
    """Those that may be kept (include/uapi/linux/capability.h)."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    NET_BIND_SERVICE = 10
    BPF = 39


class _Header(ct.Structure):
    _fields_ = (("version", ct.c_uint32), ("pid", ct.c_int))


class _Data(ct.Structure):
    _fields_ = (("effective", ct.c_uint32), ("permitted", ct.c_uint32), ("inheritable", ct.c_uint32))


def keep(capabilities: Iterable[Capability]) -> None:
    """Give up all capabilities but these, for this thread, those that it starts, and programs that it runs.

    To be called before there are other threads. Capabilities that the process does not have are not gained. What the
    kernel refuses is logged: the work can go on with more than it needs.
    """
    libc = ct.CDLL(None, use_errno=True)
    kept = set(capabilities)
    for number in range(64):
        if number not in kept:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # fails without CAP_SETPCAP, and beyond the last one
    mask = sum(1 << capability for capability in kept) & _permitted()
    data = (_Data * 2)(*(_Data(mask >> shift & 0xFFFFFFFF, mask >> shift & 0xFFFFFFFF, 0) for shift in (0, 32)))
    if libc.syscall(_CAPSET, ct.byref(_Header(_VERSION_3, 0)), data):
        _log.warning("The capabilities that are not needed stay: %s", os.strerror(ct.get_errno()))


def _permitted() -> int:
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as stream:  # noqa: PTH123
        for line in stream:
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
    return 0
