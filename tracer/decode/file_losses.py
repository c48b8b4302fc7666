"""Read what bpf/writeback.c keeps of each file that lost writes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from tracer.decode.clock import WallClock
from tracer.decode.remembered import actor_of
from tracer.model.writeback import FileLoss, LostFile, Told

#: struct file_key of bpf/failure.h.
_KEY: Final = struct.Struct("<QII")
#: struct file_loss of bpf/writeback.c.
_LOSS: Final = struct.Struct("<11QII16s")


def decode(entries: Iterable[tuple[bytes, bytes]], clock: WallClock) -> dict[LostFile, FileLoss]:
    """Make file losses of the map's entries; ``clock`` converts their times."""
    return {LostFile(*_KEY.unpack(key)): _loss(value, clock) for key, value in entries}


def _loss(value: bytes, clock: WallClock) -> FileLoss:
    first_ns, last_ns, errors, count, told_ns, told_last_ns, by, *where, errno, syscall, comm = _LOSS.unpack(value)
    told = None
    if count:
        told = Told(clock.at(told_ns), actor_of(by, comm), errno, syscall, count, clock.at(told_last_ns))
    return FileLoss(clock.at(first_ns), clock.at(last_ns), errors, told, *where)
