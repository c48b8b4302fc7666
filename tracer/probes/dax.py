"""The hooks on write faults of DAX mappings: bpf/dax.c. Attached where the kernel knows DAX, run where it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracer.errors import MkwriteError
from tracer.kernel.btf import Btf
from tracer.model.hooks import Backend
from tracer.probes.abi import Setting
from tracer.probes.tracer import HookPoint, Tracer

FILE: Final = "dax.c"
FAULT: Final = "dax_iomap_fault"
_SYNC: Final = "dax_finish_sync_fault"
_FIELDS: Final = ("fault", "huge_fault", "pfn_mkwrite")


def known(btf: Btf) -> bool:
    """Whether this kernel has DAX mappings at all."""
    return btf.function(FAULT) is not None and btf.function(_SYNC) is not None


def extended(fields: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """``fields`` and what the programs read beyond them."""
    operations = "vm_operations_struct"
    return {**fields, operations: (*fields[operations], *_FIELDS)}


def constants(btf: Btf) -> str:
    """C definitions: where the return values are."""
    return "".join(f"#define ARGUMENTS_{name} {btf.arity(name)}\n" for name in (FAULT, _SYNC))


def hook(tracer: Tracer, backend: Backend, btf: Btf) -> None:
    """Attach; what is refused is told among the hooks, and all else goes on without it."""
    sync = True
    place = HookPoint("dax_sync_return", _SYNC, backend, at_return=True, optional=True)
    try:
        tracer.attach(place, btf)
    except (OSError, MkwriteError) as error:
        # It takes a struct, which keeps fentry off before 6.1. A fault of MAP_SYNC then ends with dax_iomap_fault.
        sync = False
        if backend is not Backend.FENTRY:
            tracer.miss(place, error)
    # The return first: a call of which only the entry is seen would never end.
    for program, at_return, own in (("dax_return", True, ((Setting.DAX_SYNC, sync),)), ("dax_entry", False, ())):
        place = HookPoint(program, FAULT, backend, at_return=at_return, optional=True, own=own)
        try:
            tracer.attach(place, btf)
        except (OSError, MkwriteError) as error:
            tracer.miss(place, error)
            return
