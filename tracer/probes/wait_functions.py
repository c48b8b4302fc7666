"""The functions that page_mkwrite handlers wait in, by the reason that they stand for.

Chosen to run only when there is something to wait for, unless noted: what returns without having slept is no wait. A
kernel has some of them only: names change, and the compiler inlines. What waits elsewhere is ``other``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from tracer.kernel.symbols import Symbol, Symbols
from tracer.model.waits import Wait

_FUNCTIONS: Final[Mapping[Wait, tuple[str, ...]]] = {
    # Under a handler: sb_start_pagefault, or sb_start_intwrite of xfs (include/linux/fs.h).
    Wait.FREEZE: ("percpu_rwsem_wait",),  # kernel/locking/percpu-rwsem.c
    Wait.JOURNAL: (
        "wait_transaction_locked",  # fs/jbd2/transaction.c
        "__jbd2_log_wait_for_space",  # fs/jbd2/checkpoint.c
        "jbd2_log_wait_commit",  # fs/jbd2/journal.c
        # Runs for each metadata block that a transaction changes; waits while the commit before writes it out.
        "do_get_write_access",  # fs/jbd2/transaction.c
        "xlog_grant_head_wait",  # fs/xfs/xfs_log.c
        "xlog_wait_on_iclog",  # fs/xfs/xfs_log.c
        "xfs_buf_lock",  # fs/xfs/xfs_buf.c; runs for each metadata buffer
        # Waits for the log to take what was committed before. Runs for each transaction: what waits is inlined.
        "xlog_cil_commit",  # fs/xfs/xfs_log_cil.c
        "wait_current_trans",  # fs/btrfs/transaction.c; runs at each start of a transaction
        "btrfs_commit_transaction",  # fs/btrfs/transaction.c
        "nilfs_construct_segment",  # fs/nilfs2/segment.c
    ),
    Wait.WRITEBACK: (
        # Runs for each fault where the device wants stable pages, and on btrfs and nfs.
        "folio_wait_writeback",  # mm/page-writeback.c, 5.16
        "wait_on_page_writeback",  # the same before; a wrapper of it since
        "fuse_wait_on_page_writeback",  # fs/fuse/file.c
        "fuse_wait_on_page_writeback.part.0",  # what the compiler leaves of it in 5.10 and 6.1
        "f2fs_wait_on_page_writeback",  # fs/f2fs/segment.c
        "f2fs_folio_wait_writeback",  # the same since 6.15
        "f2fs_wait_on_block_writeback",
        "btrfs_start_ordered_extent",  # fs/btrfs/ordered-data.c
        "btrfs_start_ordered_extent_nowriteback",  # the same since 6.15
    ),
    Wait.SPACE: (
        # Inlined into the one or the other; runs for each reservation where it is.
        "handle_reserve_ticket",  # fs/btrfs/space-info.c
        "__reserve_bytes",
        "reserve_bytes",
        "f2fs_balance_fs",  # fs/f2fs/segment.c; runs for each fault, waits for garbage collection
    ),
    Wait.LOCK: (
        "rwsem_down_read_slowpath",  # kernel/locking/rwsem.c
        "rwsem_down_write_slowpath",
        "__mutex_lock_slowpath",  # kernel/locking/mutex.c
        "__mutex_lock_killable_slowpath",
        "__folio_lock",  # mm/filemap.c, 5.16
        "__folio_lock_killable",
        "__lock_page",  # the same before
        "__lock_page_killable",
        "gfs2_glock_wait",  # fs/gfs2/glock.c
        "ocfs2_inode_lock_full_nested",  # fs/ocfs2/dlmglue.c; runs for each fault
    ),
    Wait.SERVER: (
        "rpc_wait_bit_killable",  # net/sunrpc/sched.c
        "nfs_wb_page",  # fs/nfs/write.c
        "nfs_wb_folio",  # the same since 6.8
        "nfs_wait_bit_killable",  # fs/nfs/inode.c
        "request_wait_answer",  # fs/fuse/dev.c
        "ceph_get_caps",  # fs/ceph/caps.c; runs for each fault
    ),
    Wait.CACHE: (
        "__fscache_wait_on_page_write",  # fs/fscache/page.c, to 5.16
        "folio_wait_private_2_killable",  # mm/filemap.c
        "folio_wait_private_2",
    ),
    Wait.RECLAIM: (
        "try_to_free_pages",  # mm/vmscan.c
        "try_to_free_mem_cgroup_pages",
    ),
}  # fmt: skip

_REASONS: Final = {name: reason for reason, group in _FUNCTIONS.items() for name in group} | {
    "balance_dirty_pages": Wait.THROTTLE
}

#: Runs where a task that dirties pages too fast is made to sleep (mm/page-writeback.c).
THROTTLE: Final = "balance_dirty_pages"
#: Who freezes, and who thaws (fs/super.c): the programs that note it.
FREEZES: Final = {"freeze_super": "freeze", "thaw_super": "thaw"}
#: What throttles a fault after its handler has agreed (mm/memory.c).
DIRTY: Final = "fault_dirty_shared_page"


def names() -> tuple[str, ...]:
    """Every function that may be hooked or is looked for."""
    return (*(name for group in _FUNCTIONS.values() for name in group), THROTTLE, DIRTY, *FREEZES)


def reason_of(stack: Iterable[str]) -> Wait | None:
    """Return what a task waits for by its kernel stack, the innermost function first; None if none has a name."""
    return next((_REASONS[name] for name in stack if name in _REASONS), None)


def available(symbols: Symbols) -> Iterator[tuple[Wait, Symbol]]:
    """Yield the functions that this kernel has now, its own and those of the modules loaded."""
    for reason, group in _FUNCTIONS.items():
        found = {name: at[0] for name in group if len(at := symbols.find(name)) == 1 and at[0].is_function}
        if "handle_reserve_ticket" in found:
            found.pop("reserve_bytes", None)
        if "folio_wait_writeback" in found:
            found.pop("wait_on_page_writeback", None)
        for symbol in found.values():
            yield reason, symbol
