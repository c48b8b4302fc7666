"""Which filesystems have zeros before anything was refused there: a counter that comes with its first 1 has no rate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

from tracer.export.prometheus.place_ledger import MountLabels
from tracer.host.mounts import preferred
from tracer.model.mounts import Mount
from tracer.model.options import Filters
from tracer.text import printable

#: Filesystems without a block device that have a page_mkwrite handler (fs/*/file.c of kernels 5.10 to 7).
_WITHOUT_DEVICE: Final = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse", "nfs", "nfs4", "orangefs", "smb3", "ubifs", "virtiofs", "zfs"}
)


def writable_mounts(mounts: Sequence[Mount], filters: Filters) -> set[MountLabels]:
    """Mounted filesystems whose files can be written through mappings: where failures that are wanted can come from."""
    by_device: dict[int, list[Mount]] = {}
    chosen_mounts = {os.path.normpath(mountpoint) for mountpoint in filters.mounts}
    wanted = {mount.dev for mount in mounts if mount.mountpoint in chosen_mounts}
    for mount in mounts:
        if not mount.is_of(filters.fs) or (filters.mounts and mount.dev not in wanted):
            continue
        kept = mount.source.startswith("/dev/") or mount.kernel_type in _WITHOUT_DEVICE
        if kept and "ro" not in mount.super_options:
            by_device.setdefault(mount.dev, []).append(mount)
    chosen = (preferred(mounts) for mounts in by_device.values())
    return {MountLabels(printable(m.kernel_type), printable(m.mountpoint)) for m in chosen if m}
