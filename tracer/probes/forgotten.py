"""Asks the kernel which files that lost writes have left memory, and their errors with them (bpf/forgotten.c)."""

from __future__ import annotations

import ctypes as ct
import struct
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from tracer.kernel.libbpf import checked, libbpf
from tracer.model.writeback import LostFile
from tracer.probes.tracer import Tracer

_CONTEXT: Final = struct.Struct("<3Q")


class _TestRunOpts(ct.Structure):
    """struct bpf_test_run_opts (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("data", ct.c_void_p * 2),
        ("data_size", ct.c_uint32 * 2),
        ("ctx_in", ct.c_char_p),
        ("ctx_out", ct.c_void_p),
        ("ctx_size_in", ct.c_uint32),
        ("rest", ct.c_uint32 * 7),
    )


def look_for(tracer: Tracer, files: Iterable[LostFile]) -> None:
    """Have the kernel note which of the files have left memory. Where it refuses that, nothing is known of any."""
    with suppress(OSError):
        program = tracer.loaded("look_for_inode")
        for file in files:
            context = _CONTEXT.pack(file.inode, file.dev, file.generation)
            opts = _TestRunOpts(sz=ct.sizeof(_TestRunOpts), ctx_in=context, ctx_size_in=len(context))
            # Of a raw tracepoint's program since 5.10: bpf_prog_test_run_raw_tp, net/bpf/test_run.c.
            checked(libbpf().bpf_prog_test_run_opts(program, ct.byref(opts)))
