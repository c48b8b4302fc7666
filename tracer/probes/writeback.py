"""The hooks that see writes lost at writeback (bpf/writeback.c): tracepoints, on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from tracer.errors import MkwriteError
from tracer.kernel.btf import Btf
from tracer.kernel.module_btf import ModuleBtf
from tracer.kernel.symbols import Symbols
from tracer.model.hooks import Backend
from tracer.model.options import Filters
from tracer.probes.abi import Setting
from tracer.probes.tracer import HookPoint

#: Programs by tracepoint of the kernel proper: who is told comes after what there is to tell.
_PROGRAMS: Final = {
    "filemap_set_wb_err": "writeback_failed",
    "file_check_and_advance_wb_err": "writeback_told",
}
_EXT4: Final = "ext4_writepages_result"
#: A tracepoint's function (DEFINE_TRACE_FN, include/linux/tracepoint.h): there if the tracepoint is.
_EXT4_FUNCTION: Final = f"__traceiter_{_EXT4}"

#: A command is watched in a cgroup of its own.
_CGROUP: Final = "--cgroup, or a COMMAND without --all"
#: What close(2) runs where it tells of errors: fs/nfs/file.c, nfs4file.c, fs/fuse/file.c, fs/smb/client/file.c.
_FLUSH: Final = ("nfs_file_flush", "nfs4_file_flush", "fuse_flush", "cifs_flush")

#: Tracepoints of requests that NFS gives up (fs/nfs/write.c), and settings by field of struct nfs_page.
_REQUESTS: Final = ("nfs_write_error", "nfs_comp_error", "nfs_commit_error")
_REQUEST: Final = {
    Setting.REQUEST_INDEX: "wb_index",
    Setting.REQUEST_OFFSET: "wb_offset",
    Setting.REQUEST_BYTES: "wb_bytes",
}
_REPORT: Final = "fserror_report"


def functions() -> tuple[str, ...]:
    """Return the symbols that tell what may be hooked."""
    return (_EXT4_FUNCTION, *_FLUSH, _REPORT, *(f"__traceiter_{name}" for name in _REQUESTS))


def ranges(filters: Filters, symbols: Symbols, btf: Btf) -> Iterator[tuple[str, HookPoint]]:
    """Yield what tells exactly which bytes were lost, as far as it is there now: by the symbol that it is known by."""
    if _without(filters):
        return
    if symbols.find(_REPORT):
        yield _REPORT, HookPoint("range_failed", _REPORT, Backend.KPROBE, optional=True)
    requests = [name for name in _REQUESTS if symbols.find(f"__traceiter_{name}")]
    if not requests:
        return
    with suppress(OSError, MkwriteError), ModuleBtf("nfs", btf) as types:  # to 5.10 modules have none
        own = tuple((setting, types.field("nfs_page", name).offset) for setting, name in _REQUEST.items())
        for name in requests:
            yield name, HookPoint("request_failed", name, Backend.KPROBE, tracepoint=True, optional=True, own=own)


def closing(filters: Filters) -> dict[str, tuple[HookPoint, HookPoint]]:
    """By function: its return comes first, so that what was begun is always ended."""
    return (
        {}
        if _without(filters)
        else {
            function: (
                HookPoint("closed", function, Backend.KPROBE, at_return=True, optional=True),
                HookPoint("closing", function, Backend.KPROBE, optional=True),
            )
            for function in _FLUSH
        }
    )


def places(filters: Filters, backend: Backend, symbols: Symbols) -> Iterator[HookPoint]:
    """Where to hook: where functions can be, also what tells which files are mapped for writing.

    Nowhere with filters that no error of writeback can be held against (see ``notes``).
    """
    if _without(filters):
        return
    if backend is not Backend.TRACEPOINT:
        yield HookPoint("mapping_made", "vma_set_page_prot", backend, optional=True)
    tracepoints = {**_PROGRAMS, **({_EXT4: "allocation_failed"} if symbols.find(_EXT4_FUNCTION) else {})}
    for tracepoint, program in tracepoints.items():
        yield HookPoint(program, tracepoint, backend, tracepoint=True, optional=True)


def notes(filters: Filters) -> Iterator[str]:
    """Yield what is not seen with these filters."""
    if given := _without(filters):
        yield f"Writes that are lost at writeback are not told with {given}: no task and no handler is known there."


def _without(filters: Filters) -> str:
    """Return the first of the options that rule these hooks out."""
    by_task = {"--pid": filters.pids, "--comm": filters.comms, _CGROUP: filters.cgroups}
    return next((option for option, given in {**by_task, "--handler": filters.handlers}.items() if given), "")
