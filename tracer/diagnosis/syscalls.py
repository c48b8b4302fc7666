"""Names of system calls that copy to user memory, or that tell of errors at writeback, by their numbers on x86_64."""

from __future__ import annotations

from typing import Final

# arch/x86/entry/syscalls/syscall_64.tbl
_NAMES: Final = {
    0: "read", 4: "stat", 5: "fstat", 16: "ioctl", 17: "pread64", 19: "readv", 45: "recvfrom", 47: "recvmsg",
    78: "getdents", 79: "getcwd", 89: "readlink", 101: "ptrace", 202: "futex", 217: "getdents64", 228: "clock_gettime",
    262: "newfstatat", 278: "vmsplice", 295: "preadv", 299: "recvmmsg", 310: "process_vm_readv",
    311: "process_vm_writev", 318: "getrandom", 327: "preadv2", 332: "statx", 425: "io_uring_setup",
    426: "io_uring_enter", 1: "write", 18: "pwrite64", 20: "writev", 28: "madvise",
    3: "close", 26: "msync", 74: "fsync", 75: "fdatasync", 277: "sync_file_range",
}  # fmt: skip


def name(number: int) -> str:
    """``read``; ``system call 400`` for one that is not listed."""
    return _NAMES.get(number, f"system call {number}")


def number(called: str) -> int:
    """Return the number of what ``name`` gave this name; -1 for none."""
    unlisted = called.removeprefix("system call ")
    return next((n for n, listed in _NAMES.items() if listed == called), int(unlisted) if unlisted.isdecimal() else -1)
