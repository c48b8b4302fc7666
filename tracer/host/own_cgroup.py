"""A control group for one command and its children, below our own: who is in there began there, and nobody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from tracer.host.cgroups import Cgroups
from tracer.host.mounts import Mounts


class OwnCgroup:
    """A new cgroup; ``path`` is its place in the hierarchy. Made when constructed, removed when left.

    Processes that are left in it then go on in ours. Raises OSError where none can be made or entered: without cgroup
    v2, or the right to write to it, or where ours is threaded.
    """

    def __init__(self, mounts: Mounts | None = None) -> None:
        root = Cgroups(Mounts.read() if mounts is None else mounts).root
        if root is None:
            raise FileNotFoundError("there is no cgroup v2 hierarchy here")
        ours = _own()
        self._above = root / ours.lstrip("/")
        # In a cgroup namespace, the hierarchy that is mounted here may be the host's: there, our path is another's.
        if str(os.getpid()) not in (self._above / "cgroup.procs").read_text().split():
            raise FileNotFoundError("our cgroup is not in the hierarchy that is mounted here")
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        name = f"mkwrite-{namespace:x}-{os.getpid()}"
        self._directory = self._above / name
        self.path = f"{ours.rstrip('/')}/{name}"
        self._directory.mkdir(exist_ok=True)
        try:
            with self.entered():  # where it cannot be entered, it is better known now
                pass
        except OSError:
            self._directory.rmdir()
            raise

    def __enter__(self) -> OwnCgroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The innermost first. A process that makes others meanwhile makes it a few rounds.
        for _ in range(100):
            for directory, _, _ in os.walk(self._directory, topdown=False):
                with suppress(OSError):
                    for pid in Path(directory, "cgroup.procs").read_text().split():
                        with suppress(OSError):  # it has ended
                            _move(self._above, pid)
                with suppress(OSError):
                    Path(directory).rmdir()
            if not self._directory.exists():
                return

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Be in it, all threads of this process: what is started meanwhile is in it from its first instruction on."""
        _move(self._directory, "0")
        try:
            yield
        finally:
            _move(self._above, "0")


def _own() -> str:
    """Our cgroup's path, from the line ``0::/path``."""
    lines = Path("/proc/self/cgroup").read_text().split("\n")
    return next(line.removeprefix("0::") for line in (*lines, "0::/") if line.startswith("0::"))


def _move(directory: Path, pid: str) -> None:
    (directory / "cgroup.procs").write_text(pid)
