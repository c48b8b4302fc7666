"""What a report says of writes that were lost at writeback: of which file, how often, and who was told."""

from __future__ import annotations

import errno as errnos
from typing import Final

from tracer.diagnosis import syscalls
from tracer.diagnosis.explainer import Explained
from tracer.model.calls import device_name
from tracer.model.failures import Fact, Failure
from tracer.model.host_state import HostState
from tracer.model.writeback import FileLoss, Told
from tracer.text import counted, duration, offset_text, printable, size_text

#: So many processes that have the file mapped are named.
_NAMED: Final = 8
FORGOTTEN: Final = "nobody will be told: the inode has left memory, and its error with it"


def rows(explained: Explained) -> list[tuple[str, str]]:
    """Return what a report has besides the state of the host: label and text."""
    failure, state = explained.failure, explained.state
    return [
        ("file", _file(failure, state)),
        ("on", _filesystem(failure, state)),
        ("lost", _lost(explained)),
        ("told", _told(explained)),
        ("mapped", _mapped(state)),
        ("errno", _errno(failure)),
        ("below", _below(state)),
    ]


def _file(failure: Failure, state: HostState) -> str:
    """Return which file it is, how that was found, and its size."""
    name, found = failure.file, ""
    if (not name or name.startswith("...")) and state.mapped_name:
        name, found = state.mapped_name, ", found by device and inode among mapped files"
    deleted = " (deleted)" if failure.deleted else ""
    inode = f"inode {failure.inode}"
    named = f"{printable(name)}{deleted}{found}; {inode}" if name else inode
    return f"{named}, {size_text(failure.size)}, {size_text(failure.allocated)} allocated"


def _lost(explained: Explained) -> str:
    """Return how many errors the kernel recorded by then; it does not say for which pages."""
    loss = explained.loss
    if loss is None:  # another 4,096 files have lost writes since
        return "an error of writeback, for at least one page; the kernel does not say which"
    span = f" in {duration(loss.last_ns - loss.first_ns)}" if loss.errors > 1 else ""
    number = counted(loss.errors, "error")
    if loss.bytes:
        where = f"between offsets {offset_text(loss.start)} and {offset_text(loss.end)}"
        return (
            f"{'exactly' if loss.exact else 'at least'} {size_text(loss.bytes)}, {where}: {number} of writeback{span}"
        )
    return f"{number} of writeback{span}, for at least one page; the kernel does not say which, nor how many"


def _told(explained: Explained) -> str:
    """Return who was told by then."""
    loss = explained.loss
    if loss and loss.forgotten_ns >= loss.last_ns and not loss.told:
        return FORGOTTEN
    if loss is None or loss.told is None:
        if explained.failure.facts & Fact.UNRECORDED:
            return "nobody is seen to be: the kernel keeps no error for the file"
        return "nobody has been told yet"
    later = ""
    if loss.last_ns > loss.told.last_ns:
        ever = "nobody ever" if loss.forgotten_ns >= loss.last_ns else "nobody yet"
        later = f"; {duration(loss.last_ns - loss.told.last_ns)} after the last, more was lost, told to {ever}"
    return f"{told_text(loss.told, loss)}{later}"


def told_text(told: Told, loss: FileLoss) -> str:
    """Return who was told first: ``msync by db[812] was told ENOSPC, 2.10s after the first loss``."""
    errno = errnos.errorcode.get(told.errno, str(told.errno))
    who = f"{printable(told.by.comm)}[{told.by.pid}]"
    often = f"; {told.count} times in all" if told.count > 1 else ""
    after = duration(max(0, told.time_ns - loss.first_ns))
    return f"{syscalls.name(told.syscall)} by {who} was told {errno}, {after} after the first loss{often}"


def _mapped(state: HostState) -> str:
    """Return who has the file mapped for writing now, as far as can be seen."""
    if not state.mapped_by:
        return "by nobody that is seen now"
    names = [
        f"{printable(one.comm)}[{one.pid}]" + (f" in container {printable(one.container)}" if one.container else "")
        for one in state.mapped_by[:_NAMED]
    ]
    if more := len(state.mapped_by) - _NAMED:
        names += [f"{more} more"] if more > 0 else []
    return f"for writing by {', '.join(names)}"


def _filesystem(failure: Failure, state: HostState) -> str:
    """Return the filesystem, its mount and its device."""
    where = printable(failure.mountpoint or state.mountpoint) or "no mount that is seen"
    source = f" ({printable(state.mount_source)})" if state.mount_source else ""
    return f"{printable(failure.fstype)} on {where}{source}, device {device_name(failure.dev)}"


def _below(state: HostState) -> str:
    """Return what the filesystem's blocks come from, and what that has left."""
    if state.below is None:
        return ""
    free = "" if state.below.free is None else f", {size_text(state.below.free)} free"
    kind = "loop device on" if state.below.kind == "image" else state.below.kind
    return f"{kind} {printable(state.below.name)}{free}"


def _errno(failure: Failure) -> str:
    """Return the errno, and where the kernel has it."""
    how = "returned" if failure.facts & Fact.UNRECORDED else "recorded for the file"
    return f"{failure.errno_name}, {how} by {failure.errno_from}"
