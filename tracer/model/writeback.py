"""Files whose writes were accepted and lost at writeback, and who was told of it, as types. No I/O, no BCC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tracer.model.failures import Actor, Failure


class LostFile(NamedTuple):
    """Which file (struct file_key of bpf/failure.h); ``generation`` as in ``tracer.model.Filesystem``."""

    inode: int
    dev: int
    generation: int


@dataclass(frozen=True, slots=True)
class Told:
    """The first that a program was told of a file's loss: when (CLOCK_REALTIME, ns), who, which errno, by which call.

    ``syscall`` is the number of the system call. ``count`` is how often any program was told so far, and ``last_ns``
    when that was last.
    """

    time_ns: int
    by: Actor
    errno: int
    syscall: int
    count: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class FileLoss:
    """The errors of writeback that the kernel recorded for a file so far.

    ``errors`` counts them; times are ns of CLOCK_REALTIME. ``told`` is None as long as no program was told. The
    kernel told ``ranges`` of what was lost, ``bytes`` in all, between the offsets ``start`` and ``end``; 0 where it
    does not tell which. ``forgotten_ns`` is when the error was found to be gone with the file's inode, before anybody
    was told of it; 0 if it was not. What is lost after that is another error.
    """

    first_ns: int
    last_ns: int
    errors: int
    told: Told | None = None
    ranges: int = 0
    bytes: int = 0
    start: int = 0
    end: int = 0
    forgotten_ns: int = 0

    @property
    def unheard(self) -> bool:
        """Whether nobody was told of the last of them yet, and the kernel may still have it."""
        return max(self.forgotten_ns, self.told.last_ns if self.told else 0) < self.last_ns

    @property
    def exact(self) -> bool:
        """Whether those are all: each error that is told so has a range at least."""
        return self.bytes > 0 and self.ranges >= self.errors


#: By file, those that the kernel remembers: the last 4,096.
FileLosses = Mapping[LostFile, FileLoss]


def file_of(failure: Failure) -> LostFile:
    """Return the file that a failure is of."""
    return LostFile(failure.inode, failure.dev, failure.generation)
