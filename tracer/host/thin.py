"""The thin pool below a filesystem: it can be full while the filesystem has space left.

Read with dmsetup(8), which is wherever thin volumes are; ``--noflush`` keeps it from committing the pool.
"""

from __future__ import annotations

import errno
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tracer.model.calls import device_name

_SECTOR: Final = 512
_DEVICES: Final = Path("/sys/dev/block")
_TIMEOUT_S: Final = 5.0
#: Not PATH: with su, root has that of the user.
_PLACES: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
#: Devices on top of each other, at most.
_DEEPEST: Final = 8


def pool_free(dev: int) -> tuple[str, int] | None:
    """Return the thin pool that a block device ("major:minor") takes its blocks from, and its free bytes, or None.

    Raises OSError where there may be one: device-mapper, or dmsetup(8), does not tell this process.
    """
    level = [device_name(dev)]
    for _ in range(_DEEPEST):
        for device in level:
            # A pool is a device of device-mapper itself: without one below, this is no thin volume.
            if not _mapped(device) or not any(map(_mapped, _below(device))):
                continue
            if pool := pool_of(_dmsetup("table", device)):
                free = free_of(_dmsetup("table", pool), _dmsetup("status", pool))
                if free is None:
                    raise OSError(errno.EIO, "the pool does not tell what is free")
                return pool, free
        level = [below for device in level for below in _below(device)]
    return None


def pool_of(table: str) -> str | None:
    """Return the pool in the table of a thin volume: ``0 262144 thin 254:2 0``."""
    for line in table.splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[2] == "thin":
            return fields[3]
    return None


def free_of(table: str, status: str) -> int | None:
    """Free bytes of a pool, by its table and status (Documentation/admin-guide/device-mapper/thin-provisioning.rst)."""
    try:
        _, _, kind, _, _, block_sectors = table.split()[:6]
        used, _, total = status.split()[5].partition("/")
        if kind == "thin-pool":
            return (int(total) - int(used)) * int(block_sectors) * _SECTOR
    except (ValueError, IndexError):
        pass
    return None


def _mapped(device: str) -> bool:
    return (_DEVICES / device / "dm").exists()


def _below(device: str) -> list[str]:
    try:
        return [(slave / "dev").read_text().strip() for slave in (_DEVICES / device / "slaves").iterdir()]
    except OSError:
        return []


def _dmsetup(what: str, device: str) -> str:
    program = shutil.which("dmsetup", path=_PLACES)
    if program is None:
        raise FileNotFoundError(errno.ENOENT, "dmsetup is not installed")
    major, _, minor = device.partition(":")
    command = [program, what, "--noflush", "-j", major, "-m", minor]
    try:
        done = subprocess.run(
            command, env={}, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(errno.ETIMEDOUT, "dmsetup did not answer") from error
    if done.returncode:
        raise OSError(errno.EIO, "dmsetup failed")
    return done.stdout
