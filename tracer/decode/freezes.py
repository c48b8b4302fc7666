"""Read what bpf/freeze.c keeps of each filesystem that was frozen or thawed."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from tracer.decode.clock import WallClock
from tracer.decode.remembered import actor_of
from tracer.model.calls import Filesystem
from tracer.model.freezes import Freeze

#: struct fstype_key of bpf/maps.h.
_KEY: Final = struct.Struct("<II")
#: struct freeze of bpf/freeze.c.
_FREEZE: Final = struct.Struct("<4Q16s16s")


def decode(entries: Iterable[tuple[bytes, bytes]], clock: WallClock) -> dict[Filesystem, Freeze]:
    """Make freezes of the map's entries; ``clock`` converts their times."""
    return {Filesystem(*_KEY.unpack(key)): _freeze(value, clock) for key, value in entries}


def _freeze(value: bytes, clock: WallClock) -> Freeze:
    since_ns, by, thawed_ns, thawed_by, comm, thawed_comm = _FREEZE.unpack(value)
    began = (clock.at(since_ns), actor_of(by, comm)) if since_ns else (0, None)
    thawed = (clock.at(thawed_ns), actor_of(thawed_by, thawed_comm)) if thawed_ns else (0, None)
    return Freeze(*began, *thawed)
