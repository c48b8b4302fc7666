"""Reading the calls that have not returned yet: bpf/in_flight.c, a task iterator."""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, Final

from tracer.kernel.btf import Btf
from tracer.kernel.libbpf import checked, libbpf
from tracer.kernel.symbols import Symbols
from tracer.model.waits import Wait
from tracer.probes import program
from tracer.probes.abi import WAITS, WAITS_NOW, Setting
from tracer.probes.program import BpfObject, c_type

_PROGRAM: Final = "in_flight"
# the symbols that settings are the addresses of
_FAULT: Final = "handle_mm_fault"  # mm/memory.c
_ENTRY: Final = ("__entry_text_start", "__entry_text_end")  # include/asm-generic/vmlinux.lds.h
SYMBOLS: Final = (_FAULT, *_ENTRY)
ITERATOR: Final = "bpf_iter_task"
_READ: Final = 1 << 16


class InFlightReader:
    """A loaded iterator over all tasks; every look runs it once."""

    def __init__(self, bpf: BpfObject, maps: Mapping[str, int], btf: Btf, symbols: Symbols) -> None:
        """Open it; raises OSError as the kernel refuses. ``bpf`` as configured, ``maps`` by descriptor."""
        self._type: Any = c_type(bpf.maps["scratch"].value)
        number = btf.function(ITERATOR)
        if number is None:
            raise OSError(2, f"{ITERATOR} is not in the kernel's BTF")
        own = _places(symbols)
        loaded = program.load(bpf, _PROGRAM, maps, program.TRACING, program.ITER, number, own=own)
        try:
            self._link = checked(libbpf().bpf_link_create(loaded, 0, program.ITER, None))
        except OSError:
            os.close(loaded)
            raise
        self.program: Final = (_PROGRAM, loaded)

    def read(self) -> Iterator[tuple[Any, bytes, Wait | None]]:
        """Each call as a struct event (bpf/event.h), its path's bytes, and what it waits for now if that has a name."""
        with closing(os.fdopen(checked(libbpf().bpf_iter_create(self._link)), "rb", buffering=0)) as stream:
            data = b"".join(iter(lambda: stream.read(_READ), b""))
        head = self._type.path.offset
        at = 0
        while at + head <= len(data):
            event = self._type.from_buffer_copy(data[at : at + head].ljust(ct.sizeof(self._type), b"\0"))
            path = data[at + head : at + head + event.path_bytes]
            now = WAITS[event.reason & ~WAITS_NOW] if event.reason & WAITS_NOW else None
            yield event, path, now
            at += head + event.path_bytes

    def close(self) -> None:
        """Free the iterator."""
        for descriptor in (self._link, self.program[1]):
            with suppress(OSError):
                os.close(descriptor)


def _places(symbols: Symbols) -> dict[int, int]:
    """Where the kernel handles faults, and where it is entered; zeros where that is not known."""
    found = [symbols.find(name) for name in SYMBOLS]
    fault, start, end = (at[0].address if len(at) == 1 else 0 for at in found)
    known = bool(fault and start and end)
    return {Setting.FAULT_CODE: fault, Setting.ENTRY_CODE: start, Setting.ENTRY_BYTES: end - start if known else 0}
