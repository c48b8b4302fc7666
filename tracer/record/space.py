"""What filesystems have left, as a minute of the record has it: read, written as a frame, and read again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Final

from tracer.export.json.records import exact, text
from tracer.host.mounts import MOUNTINFO, Mounts, preferred
from tracer.host.opener import OPENER
from tracer.host.space import UNLIMITED, Space, space
from tracer.mappings.risk import Assessment, Key, LimitedFilesystem, LimitKind
from tracer.model.calls import device_name, device_number
from tracer.model.filesystems import Refusal, rules
from tracer.model.mounts import Mount

#: Filesystems of a minute.
MOST: Final = 32
#: Their space is memory: there may be hundreds, of containers' secrets and users' sessions.
_MEMORY: Final = ("tmpfs", "devtmpfs")
_NEVER_REFUSES: Final = (Refusal.NEVER, Refusal.MAPPING, Refusal.UNKNOWN)

Spaces = Mapping[LimitedFilesystem, Space]
#: By limit: bytes that mapped files may ask for, those that rewriting would take, what is free, and the limit itself.
Risks = Mapping[Key, tuple[int, int, int, int]]


def spaces(mounts: Mounts) -> Spaces:
    """Return what is left where a write to a mapping can be refused, local filesystems alone; at most ``MOST``."""
    by_device: dict[int, list[Mount]] = {}
    for mount in mounts:
        if _may_refuse(mount):
            by_device.setdefault(mount.dev, []).append(mount)
    chosen = [best for group in by_device.values() if (best := preferred(group))]
    chosen.sort(key=lambda mount: (mount.fstype in _MEMORY, len(mount.mountpoint), mount.mountpoint))
    try:
        root = os.open(MOUNTINFO.parent / "root", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        found = {}
        for mount in chosen[:MOST]:
            left = _space(root, mount, [one.mount_id for one in by_device[mount.dev]])
            if left and left.free < UNLIMITED:
                found[LimitedFilesystem(mount.fstype, mount.mountpoint, mount.dev)] = left
        return found
    finally:
        os.close(root)


def risks(verdicts: Iterable[Assessment]) -> Risks:
    """Return what the last look at mapped files found, by limit; the most dangerous first, at most ``MOST``."""
    kept = tuple(verdicts)[:MOST]
    return {one.limit.key: (one.new, one.rewrites, one.limit.free, one.limit.total) for one in kept}


def space_frame(found: Spaces) -> list[list[object]]:
    """Return a list for each filesystem: its labels, then bytes free to all, free to root, and in all."""
    return [[_labels(place), left.free, left.free_to_root, left.total] for place, left in found.items()]


def spaces_of(found: Iterable[list[Any]]) -> Spaces:
    """Return what ``space_frame`` wrote. Raises ValueError, KeyError or TypeError for what is none."""
    return {_place(labels): Space(0, *map(int, numbers)) for labels, *numbers in found}


def risk_frame(found: Risks) -> list[list[object]]:
    """Return a list for each limit: its labels, then its numbers as in ``Risks``."""
    return [
        [{**_labels(place), "limit": kind.value, "who": text(who)}, *numbers]
        for (place, kind, who), numbers in found.items()
    ]


def risks_of(found: Iterable[list[Any]]) -> Risks:
    """Return what ``risk_frame`` wrote. Raises ValueError, KeyError or TypeError for what is none."""
    made = {}
    for labels, *numbers in found:
        new, rewrites, free, total = map(int, numbers)
        made[_place(labels), LimitKind(labels["limit"]), exact(labels["who"])] = new, rewrites, free, total
    return made


def _may_refuse(mount: Mount) -> bool:
    known = rules(mount.fstype)
    return known.local and known.refusal not in _NEVER_REFUSES and "ro" not in mount.super_options


def _space(root: int, mount: Mount, ids: list[int]) -> Space | None:
    """Return what is left; None where there is no answer, or another filesystem hides it."""
    fd, _ = OPENER.directory(root, mount.mountpoint, ids)
    if fd is None:
        return None
    try:
        return space(fd, mount.fstype, mount.dev)
    except OSError:
        return None
    finally:
        os.close(fd)


def _labels(place: LimitedFilesystem) -> dict[str, object]:
    return {"fstype": text(place.fstype), "mountpoint": text(place.mountpoint), "device": device_name(place.dev)}


def _place(labels: Mapping[str, Any]) -> LimitedFilesystem:
    return LimitedFilesystem(exact(labels["fstype"]), exact(labels["mountpoint"]), device_number(labels["device"]))
