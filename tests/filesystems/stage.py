"""Where a filesystem is set up: a directory, its devices and daemons, taken down in reverse order."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.live.guest import run

ROOT = Path("/tmp/filesystems")
# include/uapi/linux/prctl.h
_PR_SET_THP_DISABLE = 41


def release() -> tuple[int, int]:
    """Series of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(minor)


class Stage:
    """A context manager: leaving it unmounts, detaches and kills all that was set up."""

    def __init__(self, name: str) -> None:
        self.root = ROOT / name
        self.place = self.root / "m"
        self._end = ExitStack()

    def __enter__(self) -> Self:
        self.place.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    def later(self, *command: str) -> None:
        """Run a command when all is over."""
        self._end.callback(run, *command)

    def small_pages(self) -> None:
        """Map no huge pages in this process and its children until all is over."""
        libc = ctypes.CDLL(None)
        assert libc.prctl(_PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0
        self._end.callback(libc.prctl, _PR_SET_THP_DISABLE, 0, 0, 0, 0)

    def loop(self, mib: int, name: str = "img") -> str:
        """A loop device of that size."""
        image = self.root / name
        with image.open("wb") as stream:
            stream.truncate(mib << 20)
        self._end.callback(image.unlink)
        run("modprobe", "loop")
        device = run("losetup", "-f", "--show", str(image)).strip()
        self.later("losetup", "-d", device)
        return device

    def mount(self, fstype: str, source: str, options: str = "", place: Path | None = None) -> Path:
        """Mount ``source``; on ``place`` of the stage unless another directory is named."""
        where = place or self.place
        where.mkdir(exist_ok=True)
        # -i: no helper, which may want daemons; nfs and cifs need theirs to resolve names.
        helper = () if fstype in ("nfs", "cifs") else ("-i",)
        run("mount", *helper, "-t", fstype, *(("-o", options) if options else ()), source, str(where))
        self.later("umount", str(where))
        return where

    def disk(self, fstype: str, mib: int, make: tuple[str, ...], options: str = "") -> Path:
        """Make a filesystem on a loop device and mount it."""
        device = self.loop(mib)
        run(*make, device)
        return self.mount(fstype, device, options)

    def backing(self, mib: int = 48, place: Path | None = None) -> Path:
        """An ext4 for a server, or for a filesystem that is stacked on it."""
        device = self.loop(mib, "backing.img")
        run("mkfs.ext4", "-q", "-b", "4096", "-m", "0", device)
        return self.mount("ext4", device, place=place or self.root / "backing")

    def serve(
        self, *command: str, ready: Callable[[], bool] = lambda: True, stop: signal.Signals = signal.SIGTERM
    ) -> None:
        """Start a daemon that stays in the foreground and ends when it gets ``stop``; returns when it is ready."""
        log = self.root / f"{Path(command[0]).name}.log"
        with log.open("wb") as stream:
            # In a session of its own: smbd ends its process group when it ends.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
            )
        self._end.callback(_end, process, stop)
        limit = time.monotonic() + 60
        while not ready():
            assert process.poll() is None and time.monotonic() < limit, f"{command}: {log.read_text()}"
            time.sleep(0.1)


def listening(port: int) -> Callable[[], bool]:
    """Whether somebody listens on a TCP port of this host."""

    def test() -> bool:
        # State 0A is TCP_LISTEN, include/net/tcp_states.h.
        lines = [*Path("/proc/net/tcp").read_text().splitlines()[1:], *Path("/proc/net/tcp6").read_text().splitlines()]
        return any(f":{port:04X}" in line.split()[1] and line.split()[3] == "0A" for line in lines)

    return test


def _end(process: subprocess.Popen[bytes], stop: signal.Signals) -> None:
    process.send_signal(stop)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
