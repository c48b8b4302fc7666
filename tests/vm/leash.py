"""Starts a command that ends when its starter does, whatever ends that."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

#: Runs a command with stdin closed. When the pipe that was stdin closes, that is when whoever holds its other end is
#: gone, however that ended, it removes $0 and kills the whole process group. What waits for that holds no output open.
_LEASH = 'exec 3<&0 </dev/null; { read -r _ <&3; rm -rf "$0"; kill -KILL 0; } >/dev/null 2>&1 & exec "$@" 3<&-'


class Leashed:
    """A command in a process group of its own, and a directory that goes with it if this process ends before."""

    def __init__(self, command: Sequence[str], directory: Path, **options: Any) -> None:
        """Start it; ``options`` are Popen's. Raises OSError."""
        lease, leash = os.pipe()
        self._leash: int | None = leash
        try:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", _LEASH, str(directory), *command], stdin=lease, start_new_session=True, **options
            )
        except BaseException:
            os.close(leash)
            raise
        finally:
            os.close(lease)

    def kill(self) -> None:
        """Kill the command and all that it started in its process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill it, wait for its end, and let the directory be. It may be closed before."""
        self.kill()
        self.process.wait()
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None
