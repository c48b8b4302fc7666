"""What is known of each filesystem's side of page_mkwrite: handler, refusals, copy-on-write, fallocate. No I/O.

Handlers, refusals and whether an errno is seen are checked by ``tests/filesystems``, which fills filesystems up: those
of docs/support-matrix.md on kernels 6.12 and 7.3, a few of them from 5.10 on. What fallocate does is checked by tests
of ext4, xfs, btrfs, f2fs and tmpfs. The rest is by code or documentation: all of bcachefs, bfs, cramfs, ecryptfs,
erofs, hfs, hfsplus, iso9660, msdos, reiserfs, squashfs and zfs, and of ceph and orangefs all but the handler's name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

#: Their files are made by the kernel, and nobody maps them to write.
PSEUDO: Final = frozenset({
    "autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "efivarfs", "fuse.lxcfs",
    "fusectl", "mqueue", "nsfs", "proc", "pstore", "rootfs", "rpc_pipefs", "nfsd", "securityfs", "selinuxfs", "sysfs",
    "tracefs",
})  # fmt: skip


class Refusal(StrEnum):
    """When a full filesystem says no to a write through a mapping."""

    FAULT = "fault"  #: at the write itself: SIGBUS, or EFAULT from a system call
    WRITEBACK = "writeback"  #: never at the write; the data are lost later, and msync(2) or fsync(2) say so
    MMAP = "mmap"  #: by mmap(2), which allocates all of the mapping
    MAPPING = "mapping"  #: by mmap(2), always: no mapping may be both shared and writable
    NEVER = "never"  #: no space is needed
    UNKNOWN = "unknown"


class Fallocate(StrEnum):
    """Whether fallocate(2) beforehand keeps a later write through a mapping from being refused for want of space."""

    PROTECTS = "protects"
    NOT = "does not protect"
    UNSUPPORTED = "not supported"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rules:
    """One type of filesystem.

    ``handler`` is its page_mkwrite, "" where it has none. ``rewrites``: writing to a page that has its blocks
    allocates new ones each time. ``fallocate_why`` says in a sentence why fallocate protects or not. ``local``: it
    can be asked about a file without a server or daemon that may hang. ``errno``: ``sigbus`` tells the exact errno of
    a refusal (``probes.inner``). ``source`` is where the kernel has the handler, or the mmap without one. ``older``
    holds on kernels that lack the handler, ``dax`` of DAX mappings: they have the functions that are asked in place of
    the handler, ``handler`` for a page that is not mapped and ``also`` for others.
    """

    handler: str
    refusal: Refusal
    fallocate: Fallocate
    fallocate_why: str
    rewrites: bool = False
    local: bool = True
    errno: bool = False
    source: str = ""
    older: Rules | None = None
    dax: Rules | None = None
    also: tuple[str, ...] = ()


_IN_PLACE: Final = "The blocks are there, and a write turns them from unwritten to written in place."
_LATE: Final = "The blocks are there. Without them the write is accepted, and lost at writeback when no space is left."
_LOST: Final = "It cannot preallocate: a write is accepted, and lost at writeback when no space is left."
_REMOTE: Final = "The server decides; a write is accepted here, and refused when it reaches the server."

_EXT4: Final = Rules(
    "ext4_page_mkwrite",
    Refusal.FAULT,
    Fallocate.PROTECTS,
    _IN_PLACE,
    errno=True,
    source="fs/ext4/inode.c",
)
_EXT3: Final = Rules(
    "ext4_page_mkwrite",
    Refusal.FAULT,
    Fallocate.UNSUPPORTED,
    "A file without extents cannot be preallocated: write zeros instead, they are overwritten in place.",
    errno=True,
    source="fs/ext4/inode.c",
)

_EXT_DAX: Final = Rules(
    "ext4_dax_fault",
    Refusal.FAULT,
    Fallocate.PROTECTS,
    _IN_PLACE,
    errno=True,
    source="fs/ext4/file.c",
    also=("ext4_dax_huge_fault",),
)
_XFS: Final = Rules(
    "xfs_filemap_page_mkwrite",
    Refusal.FAULT,
    Fallocate.PROTECTS,
    f"{_IN_PLACE} Not so for extents that a reflink shares: writing to them needs new blocks.",
    errno=True,
    source="fs/xfs/xfs_file.c",
)


def _remote(handler: str, source: str, older: Rules | None = None) -> Rules:
    return Rules(handler, Refusal.WRITEBACK, Fallocate.UNKNOWN, _REMOTE, local=False, source=source, older=older)


def _read_only(source: str) -> Rules:
    return Rules("", Refusal.MAPPING, Fallocate.UNSUPPORTED, "Its files cannot be mapped for writing.", source=source)


_FUSE: Final = _remote("fuse_page_mkwrite", "fs/fuse/file.c")
_NFS: Final = _remote("nfs_vm_page_mkwrite", "fs/nfs/file.c")
_CIFS: Final = _remote("cifs_page_mkwrite", "fs/smb/client/file.c")
_FAT: Final = Rules("filemap_page_mkwrite", Refusal.WRITEBACK, Fallocate.PROTECTS, _LATE, source="mm/filemap.c")
_PLAIN: Final = Rules("filemap_page_mkwrite", Refusal.WRITEBACK, Fallocate.UNSUPPORTED, _LOST, source="mm/filemap.c")
_NTFS: Final = Rules(
    "filemap_page_mkwrite",
    Refusal.MMAP,
    Fallocate.PROTECTS,
    "mmap(2) of a sparse file allocates its clusters itself, and fails where there are none.",
    source="mm/filemap.c",
)
_MEMORY: Final = Rules(
    "",
    Refusal.FAULT,
    Fallocate.PROTECTS,
    "The pages are charged to the filesystem when they are preallocated.",
    errno=True,
    source="mm/shmem.c",
)

_UNKNOWN: Final = Rules("", Refusal.UNKNOWN, Fallocate.UNKNOWN, "Nothing is known of this filesystem.", local=False)

_RULES: Final[dict[str, Rules]] = {
    "ext2": replace(_EXT3, dax=replace(_EXT_DAX, fallocate=_EXT3.fallocate, fallocate_why=_EXT3.fallocate_why)),
    "ext3": _EXT3,
    "ext4": replace(_EXT4, dax=_EXT_DAX),
    "xfs": replace(
        _XFS,
        dax=replace(_XFS, handler="xfs_filemap_fault", also=("xfs_filemap_huge_fault", "xfs_filemap_pfn_mkwrite")),
    ),
    "btrfs": Rules(
        "btrfs_page_mkwrite",
        Refusal.FAULT,
        Fallocate.NOT,
        "Copy on write: a page is given new space each time it is written to. Kernels to 6.12 refuse it even "
        "where the file is preallocated or NOCOW; those from 6.18 on then use such space, once.",
        rewrites=True,
        errno=True,
        source="fs/btrfs/file.c",
    ),
    "f2fs": Rules(
        "f2fs_vm_page_mkwrite",
        Refusal.FAULT,
        Fallocate.PROTECTS,
        "The blocks are counted as used; a rewrite goes elsewhere in the log, but takes no more of them.",
        errno=True,
        source="fs/f2fs/file.c",
    ),
    "bcachefs": Rules(
        "bch2_page_mkwrite",
        Refusal.FAULT,
        Fallocate.NOT,
        "Copy on write: a write needs new space unless the file is marked nocow. Not tried.",
        rewrites=True,
        source="fs/bcachefs/fs-io-pagecache.c",
    ),
    "nilfs2": Rules(
        "nilfs_page_mkwrite",
        Refusal.FAULT,
        Fallocate.UNSUPPORTED,
        "A log-structured filesystem: each write goes to new blocks, and is refused when few segments are left.",
        rewrites=True,
        source="fs/nilfs2/file.c",
    ),
    "ubifs": Rules(
        "ubifs_vm_page_mkwrite",
        Refusal.FAULT,
        Fallocate.UNSUPPORTED,
        "Flash is never written in place: each write needs new space.",
        rewrites=True,
        errno=True,
        source="fs/ubifs/file.c",
    ),
    "udf": Rules(
        "udf_page_mkwrite",
        Refusal.FAULT,
        Fallocate.UNSUPPORTED,
        "It cannot preallocate.",
        errno=True,
        source="fs/udf/file.c",
        older=_PLAIN,
    ),
    "zfs": Rules(
        "filemap_page_mkwrite",
        Refusal.WRITEBACK,
        Fallocate.NOT,
        "Copy on write: it only checks that there is space now, and reserves none. Not tried.",
        rewrites=True,
        source="module/os/linux/zfs/zpl_file.c",
    ),
    "gfs2": Rules(
        "gfs2_page_mkwrite",
        Refusal.FAULT,
        Fallocate.PROTECTS,
        _IN_PLACE,
        local=False,
        errno=True,
        source="fs/gfs2/file.c",
    ),
    "ocfs2": Rules(
        "ocfs2_page_mkwrite",
        Refusal.FAULT,
        Fallocate.PROTECTS,
        _IN_PLACE,
        local=False,
        errno=True,
        source="fs/ocfs2/mmap.c",
    ),
    "tmpfs": _MEMORY,
    "devtmpfs": _MEMORY,
    "hugetlbfs": replace(_MEMORY, source="mm/hugetlb.c"),
    "vfat": _FAT,
    "msdos": _FAT,
    "exfat": replace(_PLAIN, handler="exfat_page_mkwrite", source="fs/exfat/file.c", older=_PLAIN),
    "jfs": _PLAIN,
    "minix": _PLAIN,
    "hfs": _PLAIN,
    "hfsplus": _PLAIN,
    "reiserfs": _PLAIN,
    "bfs": _PLAIN,
    "ntfs3": _NTFS,
    "ntfs": Rules(
        "ntfs_filemap_page_mkwrite",
        Refusal.FAULT,
        Fallocate.UNKNOWN,
        "Whether preallocated clusters are used was not tried.",
        source="fs/ntfs/file.c",
    ),
    "zonefs": Rules(
        "zonefs_filemap_page_mkwrite",
        Refusal.NEVER,
        Fallocate.UNSUPPORTED,
        "A file is a zone of the device: its size and its space are given.",
        source="fs/zonefs/file.c",
    ),
    "jffs2": _read_only("fs/jffs2/file.c"),
    "squashfs": _read_only("fs/squashfs/file.c"),
    "erofs": _read_only("fs/erofs/data.c"),
    "iso9660": _read_only("fs/isofs/inode.c"),
    "cramfs": _read_only("fs/cramfs/inode.c"),
    "ramfs": Rules(
        "filemap_page_mkwrite",
        Refusal.NEVER,
        Fallocate.UNSUPPORTED,
        "It has no limit but the host's memory.",
        source="fs/ramfs/file-mmu.c",
    ),
    "overlay": Rules(
        "",
        Refusal.UNKNOWN,
        Fallocate.UNKNOWN,
        "That of the filesystem of its upper directory, which cannot be seen from here.",
        local=False,
    ),
    "fuse": _FUSE,
    "fuseblk": _FUSE,
    "virtiofs": _FUSE,
    "nfs": _NFS,
    "nfs4": _NFS,
    "cifs": _CIFS,
    "smb3": _CIFS,
    "9p": _remote("v9fs_vm_page_mkwrite", "fs/9p/vfs_file.c"),
    "ceph": _remote("ceph_page_mkwrite", "fs/ceph/addr.c"),
    "afs": _remote("afs_page_mkwrite", "fs/afs/write.c"),
    "pvfs2": _remote("orangefs_page_mkwrite", "fs/orangefs/inode.c"),
    "ecryptfs": _remote("filemap_page_mkwrite", "mm/filemap.c"),
}

#: Types that have rules of their own.
KNOWN: Final = tuple(_RULES)


def rules(fstype: str) -> Rules:
    """Return the rules of a filesystem type; "fuse.sshfs" has those of "fuse". An unknown type is not touched."""
    return _RULES.get(fstype) or _RULES.get(fstype.partition(".")[0]) or _UNKNOWN
