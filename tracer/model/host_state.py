"""What a host is like at the moment of a failure, as types: no I/O (see ``tracer.host.state``). Sizes are in bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class SpaceState:
    """What a filesystem has in all, left for everybody, and left for root. ``inodes`` 0: it makes them as needed."""

    total: int
    free: int
    free_to_root: int
    inodes: int
    inodes_free: int


@dataclass(frozen=True, slots=True)
class QuotaState:
    """What is left of a quota's ``limit``: ``kind`` is user, group, project or subvolume, ``number`` whose it is."""

    kind: str
    number: int
    free: int
    limit: int


@dataclass(frozen=True, slots=True)
class ChunkState:
    """A part of a btrfs: ``kind`` is data or metadata, for what is in chunks of it, or unallocated."""

    kind: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class HugeState:
    """The pool of huge pages of ``page`` bytes, in pages; ``cgroup`` has least left of those that have a limit.

    ``cgroup_refusals``: how often that limit has refused a page so far.
    """

    page: int
    total: int
    free: int
    reserved: int
    cgroup: str = ""
    cgroup_free: int = 0
    cgroup_refusals: int = 0


#: What backs a page of which some blocks are there and some not.
PARTLY: Final = "a hole in part"


@dataclass(frozen=True, slots=True)
class FileState:
    """The file a moment later; ``allocated`` counts blocks that are reserved for what is dirty, too.

    ``backing`` at the refused page: hole, ``PARTLY``, promised, unwritten, shared, ..., "" unknown.
    """

    size: int
    allocated: int
    backing: str


@dataclass(frozen=True, slots=True)
class Mapper:
    """A process that has a file mapped for writing; ``container`` is its short id or name, "" for none."""

    pid: int
    comm: str
    container: str = ""


@dataclass(frozen=True, slots=True)
class Below:
    """What a filesystem's blocks come from: a ``thin pool``, or the ``image`` of a loop device.

    ``name`` is that of the pool (dmsetup's) or file, ``free`` the pool's bytes, None where that is not known.
    """

    kind: str
    name: str
    free: int | None


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything that could be learned; what could not is empty or None.

    ``running``: the victim was still there. ``module`` is the file that the instruction is in, and where in it.
    ``mountpoint`` is as the victim sees it, or as we do; ``mount_source`` is what is mounted there, and ``limit`` the
    mount's ``size=``. ``subvolume_read_only``: only that part of a btrfs is. ``after_ns`` is how long after the failure
    this was read. ``file_gone``: the name leads to that file no more. For commands, that are typed here:

    - ``enter`` makes one run where the mount is: "" here, None where nobody is known to be who has it; ``entered_at``
      is its mount point then, "" for ``mountpoint``.
    - ``file_here`` and ``subvolume`` (its root) lead to the file, ``cgroup_directory`` to the cgroup; "": nothing does.
    - ``host_pids``: ps(1) shows the pids that the kernel tells.

    Of a loss at writeback alone: ``below`` the filesystem; ``mapped_by`` who has the file mapped for writing, found by
    device and inode in their mappings, and ``mapped_name``, how it is called there.
    """

    after_ns: int = 0
    running: bool = False
    cgroup: str = ""
    container: str = ""
    module: str = ""
    mountpoint: str = ""
    enter: str | None = ""
    entered_at: str = ""
    file_here: str = ""
    subvolume: str = ""
    cgroup_directory: str = ""
    host_pids: bool = True
    mount_source: str = ""
    read_only: bool = False
    subvolume_read_only: bool = False
    shut_down: bool = False
    limit: str = ""
    space: SpaceState | None = None
    chunks: tuple[ChunkState, ...] = ()
    quotas: tuple[QuotaState, ...] = ()
    huge: HugeState | None = None
    file: FileState | None = None
    file_gone: bool = False
    below: Below | None = None
    mapped_by: tuple[Mapper, ...] = ()
    mapped_name: str = ""
