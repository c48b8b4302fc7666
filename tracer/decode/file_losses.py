"""Read what bpf/writeback.c keeps of each file that lost writes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from tracer.decode.clock import WallClock
from tracer.model.failures import Actor
from tracer.model.writeback import FileLoss, LostFile, Told
from tracer.probes.maps import Maps

#: struct file_key of bpf/failure.h.
_KEY: Final = struct.Struct("<QII")
#: struct file_loss of bpf/writeback.c.
_LOSS: Final = struct.Struct("<11QII16s")


class LossReader:
    """Reads what each file lost that the kernel remembers."""

    def __init__(self, maps: Maps, clock: WallClock) -> None:
        self._maps = maps
        self._clock = clock
        self._last: dict[LostFile, FileLoss] = {}

    def read(self, open_: bool = True) -> dict[LostFile, FileLoss]:
        """Read them, or return those that were read last if the maps are not open any more."""
        if open_:
            self._last = decode(self._maps.file_losses(), self._clock)
        return self._last


def decode(entries: Iterable[tuple[bytes, bytes]], clock: WallClock) -> dict[LostFile, FileLoss]:
    """Make file losses of the map's entries; ``clock`` converts their times."""
    return {LostFile(*_KEY.unpack(key)): _loss(value, clock) for key, value in entries}


def _loss(value: bytes, clock: WallClock) -> FileLoss:
    first_ns, last_ns, errors, count, told_ns, told_last_ns, by, *where, errno, syscall, comm = _LOSS.unpack(value)
    told = None
    if count:
        actor = Actor(by >> 32, by & 0xFFFFFFFF, comm.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"))
        told = Told(clock.at(told_ns), actor, errno, syscall, count, clock.at(told_last_ns))
    return FileLoss(clock.at(first_ns), clock.at(last_ns), errors, told, *where)
