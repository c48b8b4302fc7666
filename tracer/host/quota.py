"""Disk quotas: how much a user, group or project may still take."""

from __future__ import annotations

import ctypes as ct
import errno
import fcntl
import os
import struct
import time
from dataclasses import dataclass
from typing import Final

from tracer.model.calls import device_name

USER, GROUP, PROJECT = 0, 1, 2

#: The same number on every architecture (since 5.14).
_SYS_QUOTACTL_FD: Final = 443
_Q_GETQUOTA: Final = 0x800007
_Q_XGETQSTATV: Final = 0x5808
#: struct if_dqblk of include/uapi/linux/quota.h, its eight numbers of 64 bits, then which of them are valid.
_DQBLK: Final = struct.Struct("=8QI4x")
_DQBLK_UNIT: Final = 1024
_STATV_BYTES: Final = 256
_FS_IOC_FSGETXATTR: Final = 0x801C581F
_PROJECT_OFFSET: Final = 12
_FSXATTR_BYTES: Final = 28


@dataclass(frozen=True, slots=True)
class Quota:
    """Bytes that may still be taken under a hard limit, or under a soft one whose grace is over; and that limit."""

    free: int
    limit: int


class Quotas:
    """The quotas of one filesystem, asked through a file on it; ``source`` is its block device, for old kernels."""

    def __init__(self, fd: int, dev: int, source: str) -> None:
        self._libc = ct.CDLL(None, use_errno=True)
        self._device = source if os.path.exists(source) else f"/dev/block/{device_name(dev)}"  # noqa: PTH110
        self._known: dict[tuple[int, int], Quota | None] = {}
        #: Whether a limit was asked for that this process may not see: it takes CAP_SYS_ADMIN.
        self.refused = False
        #: Kinds that are enforced; one that is only accounted refuses nobody.
        self.enforced = self._enforced(fd)

    def left(self, fd: int, kind: int, number: int) -> Quota | None:
        """Return what user, group or project ``number`` has left; None if it has no limit, or none that we may see."""
        if kind not in self.enforced:
            return None
        if (kind, number) not in self._known:
            self._known[kind, number] = self._ask(fd, kind, number)
        return self._known[kind, number]

    def _ask(self, fd: int, kind: int, number: int) -> Quota | None:
        buffer = ct.create_string_buffer(_DQBLK.size)
        if not self._call(fd, _Q_GETQUOTA, kind, number, buffer):
            return None
        hard, soft, used, _, _, _, grace_end, _, _ = _DQBLK.unpack(buffer.raw)
        limits = [hard * _DQBLK_UNIT] if hard else []
        if soft and grace_end and grace_end < time.time():
            limits.append(soft * _DQBLK_UNIT)
        return Quota(max(0, min(limits) - used), min(limits)) if limits else None

    def _enforced(self, fd: int) -> frozenset[int]:
        buffer = ct.create_string_buffer(_STATV_BYTES)
        buffer[0] = b"\1"  # FS_QSTATV_VERSION1
        if not self._call(fd, _Q_XGETQSTATV, USER, 0, buffer):
            return frozenset()
        (flags,) = struct.unpack_from("=H", buffer.raw, 2)
        # FS_QUOTA_UDQ_ENFD, _GDQ_, _PDQ_: two bits a kind (include/uapi/linux/dqblk_xfs.h).
        return frozenset(kind for kind in (USER, GROUP, PROJECT) if flags >> (2 * kind + 1) & 1)

    def _call(self, fd: int, command: int, kind: int, number: int, buffer: ct.Array[ct.c_char]) -> bool:
        which = ct.c_int(command << 8 | kind)
        if self._libc.syscall(ct.c_long(_SYS_QUOTACTL_FD), fd, which, ct.c_uint(number), buffer) == 0:
            return True
        refused = ct.get_errno() == errno.EPERM
        path = os.fsencode(self._device)
        if self._libc.quotactl(which, path, ct.c_int(number), buffer) == 0:
            return True
        self.refused |= refused or ct.get_errno() == errno.EPERM
        return False


def project_of(fd: int) -> int:
    """Return the project that a file belongs to (FS_IOC_FSGETXATTR), 0 for none."""
    buffer = bytearray(_FSXATTR_BYTES)
    try:
        fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, buffer)
    except OSError:
        return 0
    return int.from_bytes(buffer[_PROJECT_OFFSET : _PROJECT_OFFSET + 4], "little")
