"""The functions below the handlers that still have the errno which a VM_FAULT code hides.

Chosen to run only where something is allocated, reserved or has failed, unless noted; ``docs/commands/sigbus.md`` says
what each costs. A kernel has some of them only: names change, and the compiler inlines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tracer.kernel.symbols import Symbols


@dataclass(frozen=True, slots=True)
class Inner:
    """A function that returns an errno (or an ERR_PTR). ``module`` is "" for the kernel proper."""

    function: str
    module: str


#: By module; the order of a module's functions does not matter.
_FUNCTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    # Delayed allocation reserves here (ENOSPC, EDQUOT); without it, blocks are mapped by ext4_get_block*, in a
    # transaction that ext4_journal_check_start lets begin or not (EROFS, EIO): that one runs for each transaction.
    # ext4_iomap_begin runs for each fault of a DAX mapping, and each range that direct I/O maps.
    "ext4": (
        "ext4_da_reserve_space", "ext4_get_block", "ext4_get_block_unwritten", "ext4_journal_check_start",
        "ext4_iomap_begin",
    ),
    # xfs_buffered_write_iomap_begin runs for each call; only it returns the EIO of a filesystem shut down.
    "xfs": ("xfs_bmapi_reserve_delalloc", "xfs_iomap_write_direct", "xfs_buffered_write_iomap_begin"),
    # btrfs_update_time runs when a file gets a new time stamp, and not in a subvolume that is read-only (EROFS).
    "btrfs": (
        "btrfs_check_data_free_space", "btrfs_delalloc_reserve_metadata", "btrfs_delalloc_reserve_space",
        "btrfs_start_transaction", "btrfs_update_time",
    ),
    # f2fs_convert_inline_inode runs for each call; only it returns the EROFS of a filesystem that is read-only.
    "f2fs": ("f2fs_reserve_new_blocks", "f2fs_get_block_locked", "f2fs_get_block", "f2fs_convert_inline_inode"),
    "nilfs2": ("block_page_mkwrite", "nilfs_transaction_begin"),
    "gfs2": ("gfs2_inplace_reserve", "gfs2_quota_check"),
    "ubifs": ("ubifs_budget_space",),
    "nfs": ("nfs_flush_incompatible", "nfs_update_folio", "nfs_updatepage", "nfs_readpage"),
    "ceph": ("ceph_get_caps",),
    "udf": ("udf_get_block",),
    "ocfs2": ("ocfs2_write_begin_nolock",),
    # For each page of tmpfs that is allocated or swapped in, each huge page, each page that a fault waits to be read.
    "": (
        "shmem_alloc_and_acct_page", "shmem_alloc_and_acct_folio", "shmem_alloc_and_add_folio", "shmem_swapin_page",
        "shmem_swapin_folio", "alloc_huge_page", "alloc_hugetlb_folio", "filemap_read_folio",
    ),
}  # fmt: skip
#: These run at calls that succeed, too.
COSTLY: Final = frozenset({"xfs_buffered_write_iomap_begin", "ext4_iomap_begin", "f2fs_convert_inline_inode"})
#: In every kernel, but wanted for the filesystem that they stand with only.
_SHARED: Final = frozenset({"block_page_mkwrite"})


def names() -> tuple[str, ...]:
    """Every function that may be hooked; the first has number 1 in the programs' INNER setting."""
    return tuple(name for group in _FUNCTIONS.values() for name in group)


def available(symbols: Symbols) -> Iterator[tuple[int, Inner]]:
    """Yield the functions that this kernel has now, with their numbers: its own, and those of the modules loaded."""
    numbers = {name: number for number, name in enumerate(names(), 1)}
    for group in _FUNCTIONS.values():
        # Two of one name cannot be told apart by name, and must not be hooked by chance.
        found = {name: at[0] for name in group if len(at := symbols.find(name)) == 1 and at[0].is_function}
        if found.keys() <= _SHARED:
            continue
        for name, symbol in found.items():
            yield numbers[name], Inner(name, symbol.module)
