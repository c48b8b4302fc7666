"""What the C library does with memory that is free again."""

from __future__ import annotations

import ctypes as ct
from typing import Final

# malloc.h of glibc
_MMAP_THRESHOLD: Final = -3
_ARENA_MAX: Final = -8

#: glibc's own at the start. Set by hand, it stays.
_LARGE: Final = 128 << 10


def give_back_what_is_free() -> None:
    """Let large blocks go back to the kernel as soon as they are free, for as long as this process lives.

    glibc puts a block that is larger than a limit into a mapping of its own, and raises the limit to the largest of
    those that were freed (mallopt(3)). After the kernel's types have been read, or what the verifier had to say, blocks
    of megabytes come from the heap, where a small one above them keeps them there. So they would in a heap a thread.
    """
    mallopt = getattr(ct.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt:
        mallopt(_MMAP_THRESHOLD, _LARGE)
        mallopt(_ARENA_MAX, 1)
