"""Read what bpf/writeback.c keeps of each file that lost writes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from tracer.decode.clock import WallClock
from tracer.decode.remembered import actor_of
from tracer.model.writeback import FileLoss, LostFile, Told
from tracer.probes.forgotten import look_for
from tracer.probes.tracer import Tracer

#: struct file_key of bpf/failure.h.
_KEY: Final = struct.Struct("<QII")
#: struct file_loss of bpf/writeback.c.
_LOSS: Final = struct.Struct("<13QII16s")


def read(tracer: Tracer, clock: WallClock) -> dict[LostFile, FileLoss]:
    """Read them all; of those that nobody was told of, ask whether anybody still can be."""
    found = decode(tracer.maps.file_losses(), clock)
    if unheard := [file for file, loss in found.items() if loss.unheard]:
        look_for(tracer, unheard)
        found = decode(tracer.maps.file_losses(), clock)
    return found


def decode(entries: Iterable[tuple[bytes, bytes]], clock: WallClock) -> dict[LostFile, FileLoss]:
    """Make file losses of the map's entries; ``clock`` converts their times."""
    return {LostFile(*_KEY.unpack(key)): _loss(value, clock) for key, value in entries}


def _loss(value: bytes, clock: WallClock) -> FileLoss:
    first_ns, last_ns, errors, count, told_ns, told_last_ns, by, *rest = _LOSS.unpack(value)
    ranges, lost, start, end, _, forgotten_ns, errno, syscall, comm = rest
    told = None
    if count:
        told = Told(clock.at(told_ns), actor_of(by, comm), errno, syscall, count, clock.at(told_last_ns))
    forgotten = clock.at(forgotten_ns) if forgotten_ns else 0
    return FileLoss(clock.at(first_ns), clock.at(last_ns), errors, told, ranges, lost, start, end, forgotten)
