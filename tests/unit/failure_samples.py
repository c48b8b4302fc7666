"""Failures that the tests share."""

from __future__ import annotations

from dataclasses import replace

from tracer.diagnosis.classes import decide
from tracer.model.failures import Code, Disposition, Failure, FailureSource, Signal
from tracer.model.host_state import SpaceState

REFUSED = decide(
    Failure(
        time_ns=1_700_000_000_123_456_789,
        source=FailureSource.PAGE_MKWRITE,
        pid=4242,
        tid=4243,
        uid=7,
        comm="postgres",
        cgroup_id=1,
        fstype="ext4",
        mountpoint="/srv",
        dev=0x800001,
        inode=131,
        file="/srv/data",
        size=1 << 20,
        handler="ext4_page_mkwrite",
        offset=0x3000,
        vm_fault=2,
        signal=Signal(Code.ADRERR, Disposition.FATAL, 0x7F0000003011),
    )
)
FULL = SpaceState(1 << 30, 0, 0, 1000, 10)
ROOMY = SpaceState(1 << 30, 1 << 29, 1 << 29, 1000, 10)


def refused(number: int, **changes: object) -> Failure:
    seen = replace(REFUSED, errno=number, kernel_error=number, errno_from="ext4_da_reserve_space")
    return decide(replace(seen, **changes))  # type: ignore[arg-type]
