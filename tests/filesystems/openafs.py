"""OpenAFS's servers, for the kernel's own client: a cell of one host, which is this guest.

Their paths are compiled in: what is written outside of the stage goes with the guest.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from signal import SIGQUIT
from socket import gethostname

from tests.filesystems.recipe import Place
from tests.filesystems.stage import Stage
from tests.live.guest import run

_CELL = "mkwrite.test"
_HOST = f"afs.{_CELL}"
#: Of a block for documentation: the servers refuse loopback addresses.
_ADDRESS = "192.0.2.1"
_VOLUME = "root.cell"
_SOURCE = f"%{_CELL}:{_VOLUME}"
_PROGRAMS = Path("/usr/lib/openafs")
_CONFIG = Path("/etc/openafs/server")
_LOCAL = Path("/var/lib/openafs/local")
_AS = ("-noauth", "-config", str(_CONFIG))
#: What kafs-dns answers with when the kernel asks for the cell's servers, by request-key(8).
_CLIENT = (
    f"[cells]\n{_CELL} = {{\n use_dns = no\n servers = {{\n  {_HOST} = {{\n   address = {_ADDRESS}\n  }}\n }}\n}}\n"
)
#: An entry of an access list: whose, and all rights. Of system:administrators, and of system:anyuser.
_ADMINISTRATORS, _ANYUSER = (struct.pack(">ii", who, 0x7F) for who in (-204, -101))


def afs(stage: Stage) -> Place:
    """Serve a volume, and mount it as somebody without a ticket, who may write to it."""
    run("ip", "link", "add", "afs0", "type", "dummy")
    stage.later("ip", "link", "del", "afs0")
    run("ip", "addr", "add", f"{_ADDRESS}/32", "dev", "afs0")
    run("ip", "link", "set", "afs0", "up")
    with Path("/etc/hosts").open("a") as hosts:
        hosts.write(f"{_ADDRESS} {gethostname()} {_HOST}\n")
    partition = stage.backing(place=Path("/vicepa"))
    _serve(stage)
    run("vos", "create", _ADDRESS, "a", _VOLUME, "-maxquota", "0", *_AS)
    _open(stage.root / "dump")
    Path("/etc/kafs/client.d/mkwrite.conf").write_text(_CLIENT)
    run("modprobe", "kafs")
    return Place(stage.mount("afs", _SOURCE), fills=partition, peer=_SOURCE)


def _serve(stage: Stage) -> None:
    (_CONFIG / "ThisCell").write_text(f"{_CELL}\n")
    (_CONFIG / "CellServDB").write_text(f">{_CELL}\n{_ADDRESS} #{_HOST}\n")
    (_LOCAL / "NetInfo").write_text(f"{_ADDRESS}\n")
    (_LOCAL / "NoAuth").touch()
    # Each of the two databases elects its master before it answers.
    stage.serve(str(_PROGRAMS / "ptserver"), ready=_answers("pts", "listentries", *_AS))
    stage.serve(str(_PROGRAMS / "vlserver"), ready=_answers("vos", "listvldb", *_AS))
    stage.serve(str(_PROGRAMS / "fileserver"), ready=(_LOCAL / "fssync.sock").is_socket, stop=SIGQUIT)
    stage.serve(str(_PROGRAMS / "volserver"), ready=_answers("vos", "partinfo", _ADDRESS, *_AS))


def _answers(*command: str) -> Callable[[], bool]:
    """Whether a command succeeds."""

    def test() -> bool:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0

    return test


def _open(dump: Path) -> None:
    """Let everybody write to the volume: its access list is changed in a dump, for kafs has no command to do so."""
    run("vos", "dump", _VOLUME, "-file", str(dump), *_AS)
    data = dump.read_bytes()
    assert data.count(_ADMINISTRATORS) == 1
    dump.write_bytes(data.replace(_ADMINISTRATORS, _ANYUSER))
    run("vos", "restore", _ADDRESS, "a", _VOLUME, "-file", str(dump), "-overwrite", "full", *_AS)
