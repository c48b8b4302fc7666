"""Lines of /proc/PID/mountinfo, see proc(5). No I/O."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

#: Enough for every number that the kernel prints there; keeps garbage from becoming a huge int.
_NUMBER = re.compile(rb"[0-9]{1,10}")
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. ``dev`` is in the kernel's encoding (``major << 20 | minor``).

    ``root`` is the directory of the filesystem that is mounted ("/" but for bind mounts and subvolumes);
    ``options`` are this mount's, ``super_options`` the filesystem's. Bytes that are not UTF-8 are surrogates.
    """

    mount_id: int
    dev: int
    root: str
    mountpoint: str
    options: tuple[str, ...]
    fstype: str
    source: str
    super_options: tuple[str, ...]

    @property
    def kernel_type(self) -> str:
        """The kernel's own name of the type; mountinfo has a subtype behind a dot (show_type, fs/proc_namespace.c)."""
        return self.fstype.partition(".")[0]

    def is_of(self, fstypes: Collection[str]) -> bool:
        """Whether its type is one of those, with the subtype or without; of none given, any is."""
        return not fstypes or self.fstype in fstypes or self.kernel_type in fstypes


def parse(text: bytes) -> tuple[tuple[Mount, ...], int]:
    """Return the mounts in the text of a mountinfo file, and how many lines could not be understood; never raises."""
    # Not splitlines(): the kernel leaves a carriage return in a mount point as it is.
    lines = [line for line in text.split(b"\n") if line]
    mounts = tuple(mount for line in lines if (mount := _parse_line(line)) is not None)
    return mounts, len(lines) - len(mounts)


def _parse_line(line: bytes) -> Mount | None:
    """``36 35 98:0 /root /mnt rw,noatime master:1 - ext4 /dev/sda1 rw,errors=continue``, see proc(5)."""
    fields = line.split(b" ")
    try:
        dash = fields.index(b"-", 6)
        mount_id, _parent, device, root, mountpoint, options = fields[:6]
        fstype, source, super_options = fields[dash + 1 : dash + 4]
    except ValueError:
        return None
    major, colon, minor = device.partition(b":")
    if not (colon and all(_NUMBER.fullmatch(number) for number in (mount_id, major, minor))):
        return None
    if int(major) >= 1 << 12 or int(minor) >= 1 << 20:
        return None
    return Mount(
        mount_id=int(mount_id),
        dev=int(major) << 20 | int(minor),
        root=_text(root),
        mountpoint=_text(mountpoint),
        options=tuple(_text(options).split(",")),
        fstype=_text(fstype),
        source=_text(source),
        super_options=tuple(_text(super_options).split(",")),
    )


def _text(field: bytes) -> str:
    """Return a field with its octal escapes undone."""
    return _ESCAPE.sub(lambda octal: bytes([int(octal[1], 8)]), field).decode("utf-8", "surrogateescape")
