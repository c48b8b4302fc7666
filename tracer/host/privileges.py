"""Giving up capabilities, and the user, that are not needed any more, see capabilities(7)."""

from __future__ import annotations

import ctypes as ct
import logging
import os
import pwd
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from tracer.errors import UsageError
from tracer.text import printable

_log = logging.getLogger(__name__)

_CAPSET: Final = 126  # x86_64
_VERSION_3: Final = 0x20080522
_PR_SET_KEEPCAPS: Final = 8
_PR_CAPBSET_DROP: Final = 24


class Capability(IntEnum):
    """Those that may be kept (include/uapi/linux/capability.h)."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    NET_BIND_SERVICE = 10
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYSLOG = 34
    PERFMON = 38
    BPF = 39


#: To hook further functions, and to look at what other processes have mapped: their files, extents, quotas, pools.
ATTACHING: Final = (
    Capability.BPF, Capability.PERFMON, Capability.SYSLOG, Capability.SYS_PTRACE, Capability.DAC_READ_SEARCH,
    Capability.DAC_OVERRIDE, Capability.SYS_ADMIN,
)  # fmt: skip


class _Header(ct.Structure):
    _fields_ = (("version", ct.c_uint32), ("pid", ct.c_int))


class _Data(ct.Structure):
    _fields_ = (("effective", ct.c_uint32), ("permitted", ct.c_uint32), ("inheritable", ct.c_uint32))


class User(NamedTuple):
    """Whom to become."""

    uid: int
    gid: int

    @classmethod
    def named(cls, name: str) -> User:
        """A user with its main group. Raises UsageError if there is none of that name."""
        try:
            found = pwd.getpwnam(name)
        except (KeyError, ValueError):
            raise UsageError(
                f"There is no user '{printable(name)}'.", "Name one of those that 'getent passwd' lists."
            ) from None
        return cls(found.pw_uid, found.pw_gid)


def keep(capabilities: Iterable[Capability], user: User | None = None) -> None:
    """Give up all capabilities but these, for this thread, those that it starts, and programs that it runs.

    Root becomes ``user``, without any other group, unless one of the capabilities is missing: then root's files may be
    what is needed. Who is not root stays who it is. To be called before there are other threads. Capabilities that the
    process does not have are not gained. What the kernel refuses is logged: the work can go on with more than it needs.
    """
    libc = ct.CDLL(None, use_errno=True)
    kept = set(capabilities)
    permitted = _permitted()
    for number in range(64):
        if number not in kept:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # fails without CAP_SETPCAP, and beyond the last one
    if user and os.geteuid() == 0 and all(permitted >> capability & 1 for capability in kept):
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)  # the permitted ones, over the change of the user
        try:
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        except OSError as error:
            _log.warning("It goes on as root: %s", error.strerror)
    mask = sum(1 << capability for capability in kept) & permitted
    data = (_Data * 2)(*(_Data(mask >> shift & 0xFFFFFFFF, mask >> shift & 0xFFFFFFFF, 0) for shift in (0, 32)))
    if libc.syscall(_CAPSET, ct.byref(_Header(_VERSION_3, 0)), data):
        _log.warning("The capabilities that are not needed stay: %s", os.strerror(ct.get_errno()))


def _permitted() -> int:
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as stream:  # noqa: PTH123
        for line in stream:
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
    return 0
