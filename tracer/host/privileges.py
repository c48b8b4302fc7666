"""Giving up capabilities, and the user, that are not needed any more, see capabilities(7)."""

from __future__ import annotations

import ctypes as ct
import errno
import logging
import os
import pwd
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from tracer.errors import UsageError
from tracer.model.capabilities import Capability
from tracer.text import printable

_log = logging.getLogger(__name__)

_CAPSET: Final = 126  # x86_64
_VERSION_3: Final = 0x20080522
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38


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
    def named(cls, *names: str) -> User:
        """Return the first of these users that exists, with its main group.

        Raises UsageError if none does, or it is root.
        """
        for name in names:
            try:
                found = pwd.getpwnam(name)
            except (KeyError, ValueError):
                continue
            if not found.pw_uid or not found.pw_gid:
                raise UsageError(f"'{printable(name)}' is root, or of its group.", "Name a user without rights.")
            return cls(found.pw_uid, found.pw_gid)
        missing = "' or '".join(map(printable, names))
        raise UsageError(f"There is no user '{missing}'.", "Name one of those that 'getent passwd' lists.")


def keep(capabilities: Iterable[Capability]) -> None:
    """Give up all capabilities but these, for this thread, those that it starts, and programs that it runs.

    To be called before there are other threads. Capabilities that the process does not have are not gained. What the
    kernel refuses is logged: the work can go on with more than it needs.
    """
    kept = set(capabilities)
    _bound(kept)
    try:
        _set(sum(1 << capability for capability in kept) & _permitted())
    except OSError as error:
        _log.warning("The capabilities that are not needed stay: %s", error.strerror)


def renounce(user: User) -> None:
    """Give up every right: root becomes ``user``, without any other group, for ever and without a capability.

    Who is not root stays who it is. No other process of that user can trace this one then. Raises OSError, also where
    something is left.
    """
    libc = ct.CDLL(None, use_errno=True)
    _bound(())
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    _set(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    if 0 in os.getresuid():
        raise OSError(errno.EPERM, "it would stay root")


def _bound(capabilities: Collection[int]) -> None:
    """Have no program gain another capability, as far as that can be ruled out: it takes CAP_SETPCAP."""
    libc = ct.CDLL(None)
    for number in range(64):
        if number not in capabilities:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # fails beyond the last one, too


def _set(mask: int) -> None:
    """Have these capabilities, and be unable to pass one on. Raises OSError."""
    libc = ct.CDLL(None, use_errno=True)
    data = (_Data * 2)(*(_Data(mask >> shift & 0xFFFFFFFF, mask >> shift & 0xFFFFFFFF, 0) for shift in (0, 32)))
    if libc.syscall(_CAPSET, ct.byref(_Header(_VERSION_3, 0)), data):
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))


def _permitted() -> int:
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as stream:  # noqa: PTH123
        for line in stream:
            if line.startswith("CapPrm:"):
                return int(line.split()[1], 16)
    return 0
