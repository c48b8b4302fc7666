"""Files of this machine for a guest to mount as virtiofs: QEMU's daemon, and what QEMU needs to reach it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.vm.virtiofs import daemon

TAG = "mkwrite"
_READY_S = 20


class VirtiofsError(Exception):
    """The daemon does not start; the message says why."""


@contextmanager
def shared(size: str, memory: str) -> Iterator[list[str]]:
    """Serve an empty filesystem of ``size`` to one guest of so much ``memory``, by ``TAG``: QEMU's arguments.

    Raises VirtiofsError, or FileNotFoundError without a virtiofsd.
    """
    program = daemon()
    with TemporaryDirectory(prefix="mkwrite-virtiofs-") as place:
        socket, log, files = (Path(place, name) for name in ("socket", "log", "files"))
        files.mkdir()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                # A mount that nobody else sees, and that goes with the daemon.
                [*("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o "size=$0" none "$1" && shift && exec "$@"'),
                 *(size, str(files), str(program), f"--socket-path={socket}"),
                 *("-o", f"source={files}", "-o", "cache=auto")],
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
            )  # fmt: skip
        try:
            limit = time.monotonic() + _READY_S
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > limit:
                    raise VirtiofsError(f"virtiofsd does not start: {log.read_text().strip()}")
                time.sleep(0.05)
            yield [
                *("-object", f"memory-backend-memfd,id=mkwrite.memory,size={memory},share=on"),
                *("-numa", "node,memdev=mkwrite.memory"),
                *("-chardev", f"socket,id=mkwrite.virtiofs,path={socket}"),
                *("-device", f"vhost-user-fs-pci,chardev=mkwrite.virtiofs,tag={TAG}"),
            ]
        finally:
            process.terminate()  # it ends by itself when QEMU has gone
            process.wait()
