"""What tab completion offers as the values of options: what this machine has. No privileges are needed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from contextlib import suppress

import click

from tracer.errors import MkwriteError
from tracer.text import printable


def filesystem_types(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Return mounted types that files can be mapped of; if none begins so, all that this kernel has or could load."""
    from tracer.host.filters import filesystems_known
    from tracer.host.mounts import Mounts
    from tracer.model.filesystems import KNOWN

    mounted = _beginning(typed, lambda: {m.fstype for m in Mounts.read() if m.kernel_type in KNOWN})
    return mounted or _beginning(typed, lambda: filesystems_known(Mounts()))


def mount_points(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Where something is mounted."""
    from tracer.host.mounts import Mounts

    return _beginning(typed, lambda: {mount.mountpoint for mount in Mounts.read()})


def handlers(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Return the handlers in this kernel and its modules; where it does not tell, those of the mounted types."""
    from tracer.host.mounts import Mounts
    from tracer.kernel.symbols import Symbols
    from tracer.model.filesystems import rules

    return _beginning(typed, lambda: Symbols(()).handlers()) or _beginning(
        typed, lambda: {rules(mount.fstype).handler for mount in Mounts.read()} - {""}
    )


def _beginning(typed: str, read: Callable[[], Iterable[str]]) -> list[str]:
    """Those that ``typed`` begins, and that a shell takes as they are; none where they cannot be read."""
    with suppress(OSError, MkwriteError):  # a tab shows no errors
        return sorted(
            name for name in read() if name.startswith(typed) and shlex.quote(name) == name and printable(name) == name
        )
    return []
