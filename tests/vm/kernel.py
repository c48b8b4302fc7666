"""One unpacked kernel in the cache."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Kernel:
    """One unpacked kernel: ``boot/vmlinuz-*``, ``boot/config-*`` and ``lib/modules``."""

    series: str
    release: str
    path: Path

    @property
    def image(self) -> Path:
        return self.path / "boot" / f"vmlinuz-{self.release}"

    @property
    def unpacked_image(self) -> Path:
        """The image without its own decompressor, if there is one: see ``_unpack_image``."""
        return self.path / "boot" / f"vmlinux-{self.release}"

    @property
    def config(self) -> Path:
        return self.path / "boot" / f"config-{self.release}"

    @property
    def modules(self) -> Path:
        return self.path / "lib" / "modules" / self.release

    @property
    def stamp(self) -> Path:
        """Its mtime is when the index last confirmed this release; guests hold a lock on it."""
        return self.path / "checked"

    @property
    def age(self) -> float:
        return time.time() - self.stamp.stat().st_mtime

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the kernel from being removed by an update while a guest runs on it."""
        with self.stamp.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield
