"""Who is behind a filesystem whose files are elsewhere: a server, or the daemon of a FUSE filesystem."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.host.mounts import Mount

#: Types whose mount source names the server, or (9p, virtiofs) the channel to it.
_SERVED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "pvfs2", "virtiofs"})
_DEVICE: Final = Path("/dev/fuse")
_CONNECTION: Final = re.compile(rb"^fuse_connection:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Daemon:
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


def peer_of(mount: Mount, daemons: Sequence[Daemon]) -> Peer | None:
    """The peer of a mount; None for what is local, and where a FUSE daemon cannot be told (see ``fuse_daemons``)."""
    fstype = mount.fstype.partition(".")[0]
    if fstype in _SERVED:
        return Peer(mount.source)
    if fstype in ("fuse", "fuseblk") and (daemon := _daemon_of(mount, daemons)) is not None:
        return Peer(daemon.comm, daemon.pid)
    return None


def fuse_daemons(proc: Path = Path("/proc")) -> list[Daemon]:
    """The processes that have /dev/fuse open, by pid, as far as this process may see them."""
    directories = [entry for entry in proc.iterdir() if entry.name.isdecimal()]
    found = (_daemon(directory) for directory in sorted(directories, key=lambda entry: int(entry.name)))
    return [daemon for daemon in found if daemon is not None]


def _daemon_of(mount: Mount, daemons: Sequence[Daemon]) -> Daemon | None:
    """The daemon with the connection whose number the device has (fuse_fill_super_common: fc->dev = sb->s_dev).

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


def _daemon(process: Path) -> Daemon | None:
    try:
        for descriptor in (process / "fd").iterdir():
            if descriptor.readlink() == _DEVICE:
                info = (process / "fdinfo" / descriptor.name).read_bytes()
                shown = _CONNECTION.search(info)
                return Daemon(
                    int(process.name),
                    os.fsdecode((process / "comm").read_bytes().removesuffix(b"\n")),
                    tuple(map(os.fsdecode, (process / "cmdline").read_bytes().split(b"\0"))),
                    int(shown[1]) if shown else None,
                )
    except OSError:  # gone, or not to be seen
        return None
    return None
