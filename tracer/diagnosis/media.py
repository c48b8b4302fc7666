"""Why a page that lies within its file could not be had: broken memory, a device, a checksum."""

from __future__ import annotations

from typing import Final

from tracer.diagnosis.errnos import Reason, command, file_command, lines
from tracer.model.failures import Failure
from tracer.model.host_state import HostState

#: Whose pages are nowhere else: a broken one stays until the file lets go of it (me_pagecache_clean in
#: mm/memory-failure.c). To 5.15 a tmpfs lost it at once, and gave zeros in its place.
_IN_MEMORY: Final = ("tmpfs", "devtmpfs", "hugetlbfs")
_PAGE: Final = 4096


def poisoned(failure: Failure, state: HostState) -> Reason:
    """Explain a page whose memory was reported as broken, by the processor or a test."""
    cause = "The page's memory is broken: a hardware error was reported for it, or injected for a test."
    remedy = "Replace the memory module, unless the kernel's log says that a test injected the error (MADV_HWPOISON)."
    punch = ""
    if failure.fstype in _IN_MEMORY:
        size = failure.huge_page or _PAGE
        at = failure.offset // size * size
        cause += " Its content is lost. From Linux 5.16 on it stays in the file, and whoever reads it dies of it, too."
        remedy += " Punch the page out of the file, which reads as zeros there then, or remove the file."
        punch = file_command(state, f"fallocate --punch-hole --offset {at} --length {size}")
    elif failure.fstype:
        cause += " What was stored there and not yet written back is lost; who reads it next gets it from the disk."
        remedy += " Restart the program, once its file is known to be whole."
    else:
        cause += " Its content is lost."
        remedy += " Restart the program, which then gets another page."
    check = lines(
        "dmesg | grep -i -e mce -e poison -e 'injecting memory failure'", "grep HardwareCorrupted /proc/meminfo"
    )
    return Reason(cause, remedy, check, punch)


def unreadable(failure: Failure, state: HostState) -> Reason:
    """Explain a page that could not be read."""
    if failure.fstype == "btrfs":
        # btrfs_check_read_bio in fs/btrfs/bio.c: a checksum that does not match is EIO, too.
        return Reason(
            "The page lies within the file, and could not be read: the device failed, or what it gave does not match "
            "its checksum.",
            "The kernel's log says which (csum failed, or an error of the device). A scrub mends it from another copy, "
            "if the profile keeps one; else restore the file from a backup.",
            lines("dmesg | grep -i btrfs | tail -50", command(failure, state, "btrfs device stats")),
            command(failure, state, "btrfs scrub start -B"),
        )
    return Reason(
        "The page lies within the file, and could not be read from the device or server.",
        "Look in the kernel's log for the device's errors, and check the device; restore the file from a backup.",
        "dmesg | tail -50",
    )
