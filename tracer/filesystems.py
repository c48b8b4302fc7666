"""What is known of each filesystem's side of page_mkwrite: handler, refusals, copy-on-write, fallocate. No I/O.

Checked on kernels 5.10 to 7.3: handlers by tracing them, refusals by filling filesystems up, and what fallocate does by
tests of ext4, xfs, btrfs, f2fs and tmpfs; where a filesystem could not be had (bcachefs, zfs, hfs, hfsplus, afs), by
its code or documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Refusal(StrEnum):
    """When a full filesystem says no to a write through a mapping."""

    FAULT = "fault"  #: at the write itself: SIGBUS, or EFAULT from a system call
    WRITEBACK = "writeback"  #: never at the write; the data are lost later, and msync(2) or fsync(2) say so
    MMAP = "mmap"  #: by mmap(2), which allocates all of the mapping
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
    can be asked about a file without a server or daemon that may hang.
    """

    handler: str
    refusal: Refusal
    fallocate: Fallocate
    fallocate_why: str
    rewrites: bool = False
    local: bool = True


_IN_PLACE: Final = "The blocks are there, and a write turns them from unwritten to written in place."
_LATE: Final = "The blocks are there. Without them the write is accepted, and lost at writeback when no space is left."
_LOST: Final = "It cannot preallocate: a write is accepted, and lost at writeback when no space is left."
_REMOTE: Final = "The server decides; a write is accepted here, and refused when it reaches the server."

_EXT4: Final = Rules("ext4_page_mkwrite", Refusal.FAULT, Fallocate.PROTECTS, _IN_PLACE)
_EXT3: Final = Rules(
    "ext4_page_mkwrite",
    Refusal.FAULT,
    Fallocate.UNSUPPORTED,
    "A file without extents cannot be preallocated: write zeros instead, they are overwritten in place.",
)
_FUSE: Final = Rules("fuse_page_mkwrite", Refusal.WRITEBACK, Fallocate.UNKNOWN, _REMOTE, local=False)
_NFS: Final = Rules("nfs_vm_page_mkwrite", Refusal.WRITEBACK, Fallocate.UNKNOWN, _REMOTE, local=False)
_CIFS: Final = Rules("cifs_page_mkwrite", Refusal.WRITEBACK, Fallocate.UNKNOWN, _REMOTE, local=False)
_FAT: Final = Rules("filemap_page_mkwrite", Refusal.WRITEBACK, Fallocate.PROTECTS, _LATE)
_PLAIN: Final = Rules("filemap_page_mkwrite", Refusal.WRITEBACK, Fallocate.UNSUPPORTED, _LOST)
_NTFS: Final = Rules(
    "filemap_page_mkwrite",
    Refusal.MMAP,
    Fallocate.PROTECTS,
    "mmap(2) of a sparse file allocates its clusters itself, and fails where there are none.",
)
_MEMORY: Final = Rules(
    "", Refusal.FAULT, Fallocate.PROTECTS, "The pages are charged to the filesystem when they are preallocated."
)

_UNKNOWN: Final = Rules("", Refusal.UNKNOWN, Fallocate.UNKNOWN, "Nothing is known of this filesystem.", local=False)

_RULES: Final[dict[str, Rules]] = {
    "ext2": _EXT3,
    "ext3": _EXT3,
    "ext4": _EXT4,
    "xfs": Rules(
        "xfs_filemap_page_mkwrite",
        Refusal.FAULT,
        Fallocate.PROTECTS,
        f"{_IN_PLACE} Not so for extents that a reflink shares: writing to them needs new blocks.",
    ),
    "btrfs": Rules(
        "btrfs_page_mkwrite",
        Refusal.FAULT,
        Fallocate.NOT,
        "Copy on write: a page is given new space each time it is written to. Kernels to 6.12 refuse it even "
        "where the file is preallocated or NOCOW; those from 6.18 on then use such space, once.",
        rewrites=True,
    ),
    "f2fs": Rules(
        "f2fs_vm_page_mkwrite",
        Refusal.FAULT,
        Fallocate.PROTECTS,
        "The blocks are counted as used; a rewrite goes elsewhere in the log, but takes no more of them.",
    ),
    "bcachefs": Rules(
        "bch2_page_mkwrite",
        Refusal.FAULT,
        Fallocate.NOT,
        "Copy on write: a write needs new space unless the file is marked nocow. Not tried.",
        rewrites=True,
    ),
    "nilfs2": Rules(
        "nilfs_page_mkwrite",
        Refusal.FAULT,
        Fallocate.UNSUPPORTED,
        "A log-structured filesystem: each write goes to new blocks, and is refused when few segments are left.",
        rewrites=True,
    ),
    "ubifs": Rules(
        "ubifs_vm_page_mkwrite",
        Refusal.FAULT,
        Fallocate.UNSUPPORTED,
        "Flash is never written in place: each write needs new space.",
        rewrites=True,
    ),
    "udf": Rules("udf_page_mkwrite", Refusal.FAULT, Fallocate.UNSUPPORTED, "It cannot preallocate."),
    "zfs": Rules(
        "filemap_page_mkwrite",
        Refusal.WRITEBACK,
        Fallocate.NOT,
        "Copy on write: it only checks that there is space now, and reserves none. Not tried.",
        rewrites=True,
    ),
    "gfs2": Rules("gfs2_page_mkwrite", Refusal.FAULT, Fallocate.PROTECTS, _IN_PLACE, local=False),
    "ocfs2": Rules("ocfs2_page_mkwrite", Refusal.FAULT, Fallocate.PROTECTS, _IN_PLACE, local=False),
    "tmpfs": _MEMORY,
    "devtmpfs": _MEMORY,
    "hugetlbfs": _MEMORY,
    "vfat": _FAT,
    "msdos": _FAT,
    "exfat": _PLAIN,
    "jfs": _PLAIN,
    "minix": _PLAIN,
    "hfs": _PLAIN,
    "hfsplus": _PLAIN,
    "reiserfs": _PLAIN,
    "ntfs3": _NTFS,
    "ramfs": Rules(
        "filemap_page_mkwrite", Refusal.NEVER, Fallocate.UNSUPPORTED, "It has no limit but the host's memory."
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
    "9p": Rules("v9fs_vm_page_mkwrite", Refusal.WRITEBACK, Fallocate.UNKNOWN, _REMOTE, local=False),
    "ceph": Rules("ceph_page_mkwrite", Refusal.WRITEBACK, Fallocate.UNKNOWN, _REMOTE, local=False),
    "afs": Rules("afs_page_mkwrite", Refusal.WRITEBACK, Fallocate.UNKNOWN, _REMOTE, local=False),
}

#: Types that have rules of their own.
KNOWN: Final = tuple(_RULES)


def rules(fstype: str) -> Rules:
    """The rules of a filesystem type; "fuse.sshfs" has those of "fuse". An unknown type is not touched."""
    return _RULES.get(fstype) or _RULES.get(fstype.partition(".")[0]) or _UNKNOWN
