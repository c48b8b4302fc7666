"""Control groups (cgroup v2): path <-> id.

An id is what ``bpf_get_current_cgroup_id`` returns and what stat(2) shows as the inode number of the cgroup's
directory. The kernel never gives an id twice and a cgroup cannot be renamed: what was once looked up holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Final

from tracer.errors import UsageError
from tracer.host.mounts import Mounts, preferred
from tracer.text import printable

#: Ids remembered, dead cgroups included, before the cache is emptied and filled anew.
_CACHED: Final = 65_536
#: Names listed in an error.
_LISTED: Final = 12


class Cgroups:
    """The cgroup v2 hierarchy of this host; ``root`` is its mount point, None where there is none."""

    def __init__(self, mounts: Mounts) -> None:
        mount = preferred(mount for mount in mounts if mount.fstype == "cgroup2")
        self.root = Path(mount.mountpoint) if mount else None
        self._paths: dict[int, str] = {}

    def id_of(self, path: str) -> int:
        """Return the id of a cgroup, named by its path in the hierarchy or in the file system.

        "/system.slice/ssh.service", "system.slice/ssh.service" and "/sys/fs/cgroup/system.slice/ssh.service"
        are the same. Raises UsageError if there is none such.
        """
        if self.root is None:
            raise UsageError(
                "This host has no cgroup v2 hierarchy mounted, so a cgroup cannot be chosen.",
                "Mount one with 'mount -t cgroup2 none /sys/fs/cgroup', or leave --cgroup out.",
            )
        wanted = self.named(path)
        directory = self.root / wanted.relative_to("/")
        try:
            if directory.is_dir():
                return directory.stat().st_ino
        except (OSError, ValueError):
            pass
        problem = f"There is no cgroup '{printable(str(wanted))}'."
        raise UsageError(problem, _what_exists(self.root, directory))

    def named(self, path: str) -> PurePosixPath:
        """Return the path in the hierarchy of a cgroup that is named as for ``id_of``."""
        wanted = PurePosixPath(os.path.normpath(f"/{path.lstrip('/')}"))
        if self.root is not None and wanted.is_relative_to(self.root):
            return "/" / wanted.relative_to(self.root)
        return wanted

    def path_of(self, cgroup_id: int) -> str:
        """Return the path of a cgroup in its hierarchy, "/" for the root; "cgroup:ID" if it is gone or unseen."""
        path = self._paths.get(cgroup_id)
        if path is None:
            if len(self._paths) >= _CACHED:
                self._paths.clear()
            self._paths |= self._present()[0]
            # An id seen in an event was alive by then: one that is not found now will not come back.
            path = self._paths.setdefault(cgroup_id, f"cgroup:{cgroup_id}")
        return path

    def members(self, path: str) -> Iterator[int]:
        """Yield the processes of a cgroup, as our /proc has them; none for one that is gone, or the root."""
        if self.root is None or path == "/":
            return
        with suppress(OSError):
            for line in (self.root / path.lstrip("/") / "cgroup.procs").read_text().split():
                # 0: a process of another pid namespace, which we do not see
                if line != "0":
                    yield int(line)

    def ids(self) -> set[int] | None:
        """Of all cgroups that there are now; None if there may be more: some could not be read."""
        found, complete = self._present()
        return set(found) if complete else None

    def _present(self) -> tuple[dict[int, str], bool]:
        """Return the paths of all cgroups by id, and whether there are no others. However deep users nest theirs."""
        found: dict[int, str] = {}
        complete = True
        left = [""] if self.root else []
        with suppress(OSError):
            if self.root:
                found[self.root.stat().st_ino] = "/"
        while left:
            above = left.pop()
            try:
                with os.scandir(f"{self.root}{above}") as entries:
                    below = {entry.inode(): f"{above}/{entry.name}" for entry in entries if entry.is_dir()}
            except FileNotFoundError:
                continue  # it has gone
            except OSError:
                complete = False
                continue
            found |= below
            left += below.values()
        return found, complete


def _what_exists(root: Path, missing: Path) -> str:
    """Return a sentence on what can be named instead: the children of the nearest cgroup above that exists."""
    above = next(parent for parent in missing.parents if parent == root or parent.is_dir())
    where = "/" if above == root else f"/{above.relative_to(root)}"
    children = sorted(child.name for child in above.iterdir() if child.is_dir())
    if not children:
        return f"'{printable(where)}' exists, and has no cgroups below it."
    more = f" and {len(children) - _LISTED} more" if len(children) > _LISTED else ""
    return f"Below '{printable(where)}' there are: {', '.join(map(printable, children[:_LISTED]))}{more}."
