"""What kind of failure it is, and its errno: decided once, from what the kernel said of it alone. No I/O."""

from __future__ import annotations

import errno as errnos
from dataclasses import replace
from typing import Final

from tracer.model.failures import Cause, Class, Code, Diagnosed, Fact, Failure, FailureSource, code_of
from tracer.model.filesystems import rules

_MEMORY: Final = ("tmpfs",)
#: Never of what is only read: of a call whose begin was not seen.
_OF_WRITES: Final = (errnos.ENOSPC, errnos.EDQUOT, errnos.EROFS)
_POISON: Final = (Code.MCEERR_AR, Code.MCEERR_AO)
#: Facts that leave one errno only, and what says so.
_INFERRED: Final = {
    Fact.SWAPFILE: ("ETXTBSY", "the inode's flag S_SWAPFILE"),
    Fact.IMMUTABLE: ("EPERM", "the inode's flag S_IMMUTABLE"),
    Fact.READ_ONLY: ("EROFS", "the superblock's flag SB_RDONLY"),
    Fact.NO_MEMORY: ("ENOMEM", "VM_FAULT_OOM"),
    Fact.SHUT_DOWN: ("EIO", "xfs_do_force_shutdown or what it calls, which was seen to shut the filesystem down"),
}
_INFERRED_OF_CLASS: Final = {
    Class.TMPFS_FULL: ("ENOSPC", "shmem_fault, which gives SIGBUS within a file only when it may allocate no page"),
    Class.HUGETLB: ("ENOSPC", "hugetlb_fault, which gives SIGBUS within a file only when it may allocate no page"),
    Class.MEDIA: ("EIO", "the fault handler: within the file it fails only where a page cannot be read"),
}


def decide(failure: Failure) -> Failure:
    """Decide it for one failure."""
    return replace(failure, verdict=verdict(failure.burst.cause, failure.fstype))


def verdict(cause: Cause, fstype: str) -> Diagnosed:
    """Decide it for failures of one cause; ``fstype`` is the kernel's name of the type."""
    kind = _class_of(cause, fstype)
    return Diagnosed(kind, *_errno_of(cause, fstype, kind))


def _class_of(cause: Cause, fstype: str) -> Class:
    source, facts = tuple(FailureSource)[cause.source], Fact(cause.facts)
    if source is FailureSource.SIGNAL:
        code = code_of(cause.error)
        if code.sent:
            return Class.AGAIN if facts & Fact.AGAIN else Class.SENT
        return Class.MEDIA if code in _POISON else Class.OTHER
    if source is FailureSource.WRITEBACK:
        return Class.WRITEBACK_UNMAPPED if facts & Fact.UNMAPPED else Class.WRITEBACK
    if facts & Fact.POISONED:
        return Class.MEDIA
    if facts & Fact.BEYOND_END:
        return Class.BEYOND_END
    if facts & Fact.UNSEEN and (source is FailureSource.HUGETLB or fstype in _MEMORY):
        return Class.OTHER
    if source is FailureSource.HUGETLB:
        return Class.HUGETLB
    if fstype in _MEMORY:
        return {0: Class.TMPFS_FULL, errnos.ENOSPC: Class.TMPFS_FULL, errnos.EIO: Class.MEDIA}.get(
            cause.error, Class.OTHER
        )
    # A DAX mapping has no page to read: a write's ->fault allocates, as page_mkwrite does elsewhere.
    read = source is FailureSource.FAULT and not facts & Fact.DAX_WRITE
    return Class.MEDIA if read and cause.error not in _OF_WRITES else Class.REFUSED


def _errno_of(cause: Cause, fstype: str, kind: Class) -> tuple[str, str]:
    """Return the errno's name and what it was inferred from ("" if the kernel was seen to return it); "" for none."""
    if cause.source == tuple(FailureSource).index(FailureSource.SIGNAL):
        return "", ""
    if cause.error:
        return errnos.errorcode.get(cause.error, str(cause.error)), ""
    if kind is Class.REFUSED:
        return next((found for fact, found in _INFERRED.items() if cause.facts & fact), ("", ""))
    if cause.facts & Fact.POISONED or (kind is Class.MEDIA and not rules(fstype).local):
        # A server may have more to say than EIO.
        return "", ""
    return _INFERRED_OF_CLASS.get(kind, ("", ""))
