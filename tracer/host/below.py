"""What a filesystem's blocks come from, and may fail to come from: a thin pool, or the file of a loop device."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.host.thin import pool_free
from tracer.model.calls import device_name
from tracer.model.host_state import Below

_DEVICES: Final = Path("/sys/dev/block")
#: So long a device is not asked again: files that lose writes come in crowds. One that did not answer, for longer.
_FRESH_S: Final = 1.0
_STUCK_S: Final = 60.0


class Belows:
    """Looks below filesystems."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[float, Below | None]] = {}

    def find(self, dev: int) -> Below | None:
        """Return what is below a block device, now or within the last second; None if nothing is seen.

        Raises nothing.
        """
        until, found = self._known.get(dev, (0.0, None))
        if time.monotonic() >= until:
            fresh = _FRESH_S
            try:
                found = _pool(dev) or _image(dev)
            except TimeoutError:
                found, fresh = None, _STUCK_S
            self._known[dev] = time.monotonic() + fresh, found
        return found


def _pool(dev: int) -> Below | None:
    try:
        pool = pool_free(dev)
    except TimeoutError:
        raise
    except OSError:
        return None
    if pool is None:
        return None
    name = pool[0]
    with suppress(OSError):
        name = (_DEVICES / name / "dm" / "name").read_text().strip()
    return Below("thin pool", name, pool[1])


def _image(dev: int) -> Below | None:
    """By the name that it was attached by: the file itself, which may be on a server, is not looked at."""
    with suppress(OSError):
        raw = (_DEVICES / device_name(dev) / "loop" / "backing_file").read_bytes()
        return Below("image", os.fsdecode(raw.removesuffix(b"\n")), None)
    return None
