"""Capabilities by their numbers (include/uapi/linux/capability.h): those that this program keeps or asks about."""

from __future__ import annotations

from enum import IntEnum


class Capability(IntEnum):
    """See capabilities(7)."""

    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    SYS_PTRACE = 19
    SYS_ADMIN = 21
    SYS_RESOURCE = 24
    SYSLOG = 34
    PERFMON = 38
    BPF = 39
