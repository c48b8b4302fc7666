"""Who is behind a filesystem whose files are elsewhere: a server, or the daemon of a FUSE filesystem."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.model.mounts import Mount

#: Types whose mount source names the server, or (9p, virtiofs) the channel to it.
_SERVED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "pvfs2", "virtiofs"})
#: Types that a daemon answers for, through /dev/fuse.
DAEMONS: Final = frozenset({"fuse", "fuseblk"})
_DEVICE: Final = Path("/dev/fuse")
_CONNECTION: Final = re.compile(rb"^fuse_connection:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FuseDaemon:
    """A process that holds a connection of /dev/fuse. ``connection`` is its number, None where it is not shown."""

    pid: int
    comm: str
    arguments: tuple[str, ...]
    connection: int | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """Who answers for a filesystem: ``name`` is a server's as the mount has it, or a daemon's comm with its ``pid``."""

    name: str
    pid: int | None = None

    @property
    def label(self) -> str:
        """``server:/export`` or ``comm[pid]``."""
        return self.name if self.pid is None else f"{self.name}[{self.pid}]"


def peer_of(mount: Mount, daemons: Sequence[FuseDaemon]) -> Peer | None:
    """Return the peer of a mount; None for a local one, and for an unknown FUSE daemon (see ``fuse_daemons``)."""
    fstype = mount.kernel_type
    if fstype in _SERVED:
        return Peer(mount.source)
    if fstype in DAEMONS and (daemon := _daemon_of(mount, daemons)) is not None:
        return Peer(daemon.comm, daemon.pid)
    return None


def fuse_daemons(proc: Path = Path("/proc")) -> list[FuseDaemon]:
    """Return the processes that have /dev/fuse open, by pid, as far as this process may see them."""
    directories = [entry for entry in proc.iterdir() if entry.name.isdecimal()]
    return [daemon for entry in sorted(directories, key=lambda entry: int(entry.name)) for daemon in _daemons(entry)]


def unseen(proc: Path = Path("/proc")) -> int:
    """How many processes may have /dev/fuse open, for what this one may see."""
    refused = 0
    for entry in proc.iterdir():
        try:
            if entry.name.isdecimal():
                os.listdir(entry / "fd")  # noqa: PTH208  # iterdir may look later
        except PermissionError:
            refused += 1
        except OSError:
            continue  # gone
    return refused


def _daemon_of(mount: Mount, daemons: Sequence[FuseDaemon]) -> FuseDaemon | None:
    """Return the daemon with the connection whose number the device has (fuse_fill_super_common: fc->dev = sb->s_dev).

    Kernels that do not show a descriptor's connection leave two ways: the arguments name the mount point, or there is
    one daemon only.
    """
    unknown = [daemon for daemon in daemons if daemon.connection is None]
    for daemon in daemons:
        if daemon.connection == mount.dev:
            return daemon
    named = [daemon for daemon in unknown if mount.mountpoint in daemon.arguments]
    candidates = named or unknown
    return candidates[0] if len(candidates) == 1 else None


def _daemons(process: Path) -> Iterator[FuseDaemon]:
    """Yield a process once for each connection that it holds, by however many descriptors."""
    with suppress(OSError):  # gone, or not to be seen
        found: set[int | None] = set()
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if descriptor.readlink() == _DEVICE:
                    shown = _CONNECTION.search((process / "fdinfo" / descriptor.name).read_bytes())
                    found.add(int(shown[1]) if shown else None)
        if found:
            comm = os.fsdecode((process / "comm").read_bytes().removesuffix(b"\n"))
            arguments = tuple(map(os.fsdecode, (process / "cmdline").read_bytes().split(b"\0")))
            for connection in sorted(found, key=lambda number: number or 0):
                yield FuseDaemon(int(process.name), comm, arguments, connection)
