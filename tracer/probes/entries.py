"""Reading all entries of a BPF map, while programs write to it."""

from __future__ import annotations

import ctypes as ct
import errno
from collections.abc import Iterator
from itertools import islice
from typing import Any

from tracer.kernel.libbpf import checked, libbpf
from tracer.kernel.preemption import unpreempted
from tracer.probes.program import MapSpec


def entries(spec: MapSpec, descriptor: int) -> Iterator[tuple[bytes, bytes]]:
    """All entries of a map, in one system call where it is not written to meanwhile."""
    for keys, values, count in list(_batches(spec, descriptor)):
        for key, value in islice(zip(_cut(keys, spec.key_size), _cut(values, spec.value_size), strict=True), count):
            yield bytes(key), bytes(value)


def _batches(spec: MapSpec, descriptor: int) -> Iterator[tuple[Any, Any, int]]:
    """Keys, values and how many there are. The kernel goes on from one bucket to the next, to the last.

    A bucket that does not fit is refused with ENOSPC (__htab_map_lookup_and_delete_batch, kernel/bpf/hashtab.c): what
    was written meanwhile may leave less room than it needs.
    """
    batch, previous, room = ct.c_uint64(), None, spec.max_entries
    with unpreempted():
        while True:
            keys, values = (ct.c_char * (room * spec.key_size))(), (ct.c_char * (room * spec.value_size))()
            count = ct.c_uint32(room)
            result = libbpf().bpf_map_lookup_batch(
                descriptor, previous, ct.byref(batch), keys, values, ct.byref(count), None
            )
            if result not in (-errno.ENOENT, -errno.ENOSPC):
                checked(result)
            yield keys, values, count.value
            if result == -errno.ENOENT:
                return
            if result == -errno.ENOSPC:
                room *= 2
            previous = ct.byref(batch)


def _cut(data: Any, size: int) -> Iterator[memoryview]:
    view = memoryview(data).cast("B")
    return (view[at : at + size] for at in range(0, len(view), size))
