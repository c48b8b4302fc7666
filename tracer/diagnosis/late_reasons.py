"""Why a write was accepted and then lost at writeback, by errno: cause, remedy, and the command to check. No I/O."""

from __future__ import annotations

from typing import Final

from tracer.diagnosis.errnos import Reason, df, lines, place
from tracer.model.failures import Fact, Failure
from tracer.model.filesystems import rules
from tracer.model.host_state import HostState
from tracer.text import printable, shell_word

_COPY: Final = (
    "What was written is not on disk: copy the file now, while the pages may still be read from memory. Have the "
    "program call msync(MS_SYNC) or fsync and check the result"
)


def late_reason(failure: Failure, state: HostState) -> Reason:
    """Explain a loss at writeback."""
    if failure.facts & Fact.UNRECORDED:
        return _unallocated(failure, state)
    accepted = f"{place(failure, state)} accepted the write, and"
    below, remedy = _below(failure, state), f"{_COPY}."
    # Of a full device, ext4 to 6.11 and the loop device up to then make EIO.
    if failure.errno_name == "ENOSPC" or (state.below is not None and state.below.free == 0):
        return Reason(
            f"{accepted} {below} had no space for it when it was written back.",
            f"{'Extend' if _is_pool(state) else 'Make room on'} {below}. {remedy}",
            lines(_check_below(failure, state), df(failure, state), "dmesg | tail -50"),
        )
    if failure.errno_name == "EDQUOT":
        return Reason(
            f"{accepted} a quota of {below} did not allow it when it was written back.",
            f"Raise the quota. {remedy}",
            df(failure, state),
        )
    return Reason(
        f"{accepted} {below} failed it when it was written back.",
        f"Look in the kernel's log for errors of the device or the connection, and replace what fails. {remedy}",
        "dmesg | tail -50",
    )


def _below(failure: Failure, state: HostState) -> str:
    """Whoever the pages are written back to."""
    if not rules(failure.fstype).local:
        return "the server or daemon behind it"
    if state.below is not None:
        of = "the filesystem that holds" if state.below.kind == "image" else "the thin pool"
        return f"{of} {printable(state.below.name)}"
    if failure.errno_name == "ENOSPC":
        return "the device below (a thin pool, or a file that is a loop device's)"
    return "the device below"


def _is_pool(state: HostState) -> bool:
    return state.below is not None and state.below.kind == "thin pool"


def _check_below(failure: Failure, state: HostState) -> str:
    if not rules(failure.fstype).local:
        return ""
    if state.below is None:
        return "lvs -a"
    name = shell_word(state.below.name)
    return f"df -h {name}" if state.below.kind == "image" else f"lvs -a\ndmsetup status {name}"


def _unallocated(failure: Failure, state: HostState) -> Reason:
    return Reason(
        f"{place(failure, state)} could not write the file back: it found no blocks for what it had promised, or its "
        "journal is aborted. It may have dropped the pages (mpage_map_and_submit_extent, fs/ext4/inode.c), and keeps "
        "no error for the file.",
        "Look in the kernel's log for errors of the filesystem, and repair it. Copy the file now, and compare "
        f"{shell_word(failure.file)} with a backup.",
        lines("dmesg | tail -50", df(failure, state)),
    )
