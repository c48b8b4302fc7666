"""Which filesystem a mapping's device number stands for, in whatever mount namespace it is mounted."""

from __future__ import annotations

from pathlib import Path

from tracer.host.mounts import Mounts, preferred
from tracer.host.opener import OPENER
from tracer.host.reach import entering
from tracer.model.mounts import Mount


class MountNamespaces:
    """Device number -> mount: of our own namespace, else of that of the process that maps a file."""

    def __init__(self) -> None:
        self.own = Mounts.read()
        self._by_dev = _by_dev(self.own)
        self._others: dict[str, Mounts] = {}
        self._beneath: dict[int, Mount | None] = {}

    def find(self, dev: int, pid: int) -> Mount | None:
        """Return the mount of a device, None if it is mounted nowhere that can be seen: memory without a filesystem.

        For an overlay it is the mount that holds its upper directory, where what is written goes, if that is
        visible from here; older kernels name that device in the first place (show_map_vma in fs/proc/task_mmu.c).
        """
        mount = self._by_dev.get(dev) or preferred(one for one in self.seen_by(pid) if one.dev == dev)
        if mount is None or mount.fstype != "overlay":
            return mount
        if dev not in self._beneath:
            self._beneath[dev] = self._upper(mount)
        return self._beneath[dev] or mount

    def enter(self, mount: Mount, pid: int) -> str:
        """Return the prefix that lets a command see the mount that ``pid`` sees; "" if we have it at the same place."""
        ours = self.own.at(mount.mountpoint)
        return "" if not mount.mountpoint or (ours and ours.dev == mount.dev) else entering(pid)

    def seen_by(self, pid: int) -> Mounts:
        """Return the mounts of the mount namespace of a process; none if it is gone."""
        try:
            namespace = str(Path(f"/proc/{pid}/ns/mnt").readlink())
        except OSError:
            return Mounts()
        if namespace not in self._others:
            try:
                self._others[namespace] = Mounts.read(Path(f"/proc/{pid}/mountinfo"))
            except OSError:
                return Mounts()
        return self._others[namespace]

    def _upper(self, overlay: Mount) -> Mount | None:
        prefix = "upperdir="
        upper = next((o.removeprefix(prefix) for o in overlay.super_options if o.startswith(prefix)), None)
        if upper is None:
            return None
        # A user can mount an overlay, and so name the directory.
        mount_id = OPENER.mount_id(upper)
        return next((mount for mount in self.own if mount.mount_id == mount_id), None)


def _by_dev(mounts: Mounts) -> dict[int, Mount]:
    places: dict[int, list[Mount]] = {}
    for mount in mounts:
        places.setdefault(mount.dev, []).append(mount)
    return {dev: best for dev, several in places.items() if (best := preferred(several))}
