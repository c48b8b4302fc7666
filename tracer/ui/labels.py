"""What several views print of a series or an event, escaped."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from tracer.model.calls import device_name
from tracer.text import printable

#: Said where a table would be. What hangs since before the hooks were on has begun no call that they saw.
NO_CALLS = "no calls (`mkwrite stuck` finds those that hang since before)"


def time_of_day(time_ns: int) -> str:
    """Return a moment of CLOCK_REALTIME here, without its date."""
    moment = datetime.fromtimestamp(time_ns // 1_000_000_000).astimezone()
    return f"{moment:%H:%M:%S}.{time_ns // 1_000_000 % 1000:03d}"


class OnFilesystem(Protocol):
    """What everything that is counted or told has: where it was."""

    @property
    def fstype(self) -> str:
        """OnFilesystem type."""

    @property
    def mountpoint(self) -> str:
        """Where the filesystem is mounted, or ""."""

    @property
    def dev(self) -> int:
        """Device number in the kernel's encoding, or 0."""


class OnHandler(OnFilesystem, Protocol):
    """What a series and an event have in common: the filesystem and the handler."""

    @property
    def handler(self) -> str:
        """The handler's symbol, or ""."""


def device(place: OnFilesystem) -> str:
    """``major:minor``, or ``-`` for a mapping without a file."""
    return device_name(place.dev) if place.dev else "-"


def mount(place: OnFilesystem) -> str:
    """Return the mount point; where none is visible, the device stands in, so that rows can still be told apart."""
    return printable(place.mountpoint) if place.mountpoint else f"({device(place)})" if place.dev else "-"


def fstype(place: OnFilesystem) -> str:
    """Return the filesystem type."""
    return printable(place.fstype) or "-"


def handler(place: OnHandler) -> str:
    """Return the handler's symbol."""
    return printable(place.handler) or "-"
