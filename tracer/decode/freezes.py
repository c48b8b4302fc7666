"""Read what bpf/freeze.c keeps of each filesystem that was frozen or thawed."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from tracer.decode.clock import WallClock
from tracer.model.calls import Filesystem
from tracer.model.failures import Actor
from tracer.model.freezes import Freeze
from tracer.probes.maps import Maps

#: struct fstype_key of bpf/maps.h.
_KEY: Final = struct.Struct("<II")
#: struct freeze of bpf/freeze.c.
_FREEZE: Final = struct.Struct("<4Q16s16s")


class FreezeReader:
    """Reads who froze and thawed what, as far as the kernel remembers it: the last 1,024 filesystems."""

    def __init__(self, maps: Maps, clock: WallClock) -> None:
        self._maps = maps
        self._clock = clock
        self._last: dict[Filesystem, Freeze] = {}

    def read(self, open_: bool = True) -> dict[Filesystem, Freeze]:
        """Read them, or return those that were read last if the maps are not open any more."""
        if open_:
            self._last = decode(self._maps.freezes(), self._clock)
        return self._last


def decode(entries: Iterable[tuple[bytes, bytes]], clock: WallClock) -> dict[Filesystem, Freeze]:
    """Make freezes of the map's entries; ``clock`` converts their times."""
    return {Filesystem(*_KEY.unpack(key)): _freeze(value, clock) for key, value in entries}


def _freeze(value: bytes, clock: WallClock) -> Freeze:
    since_ns, by, thawed_ns, thawed_by, comm, thawed_comm = _FREEZE.unpack(value)
    began = (clock.at(since_ns), _actor(by, comm)) if since_ns else (0, None)
    thawed = (clock.at(thawed_ns), _actor(thawed_by, thawed_comm)) if thawed_ns else (0, None)
    return Freeze(*began, *thawed)


def _actor(id_: int, comm: bytes) -> Actor:
    return Actor(id_ >> 32, id_ & 0xFFFFFFFF, comm.split(b"\0", 1)[0].decode("utf-8", "surrogateescape"))
