"""Every entry of a map is read, though what was written meanwhile leaves too little room for a bucket."""

from __future__ import annotations

import ctypes as ct
import errno
from types import SimpleNamespace
from typing import Any

import pytest

from tracer.probes import entries as module
from tracer.probes.entries import entries
from tracer.probes.program import MapSpec

#: Keys and values of 4 and 8 bytes.
SPEC = MapSpec(1, 4, 8, 5, 0, None, None)


class Buckets:
    """A hash map as the kernel reads it out: whole buckets, as long as they fit (kernel/bpf/hashtab.c)."""

    def __init__(self, *sizes: int) -> None:
        numbers = iter(range(sum(sizes)))
        self._buckets = [[next(numbers) for _ in range(size)] for size in sizes]

    def bpf_map_lookup_batch(
        self, _descriptor: int, start: Any, end: Any, keys: Any, values: Any, count: Any, _options: None
    ) -> int:
        at, room, total = start._obj.value if start else 0, count._obj.value, 0
        result = 0
        while at < len(self._buckets):
            bucket = self._buckets[at]
            if len(bucket) > room - total:
                result = 0 if total else -errno.ENOSPC
                break
            for number in bucket:
                ct.memmove(ct.addressof(keys) + 4 * total, number.to_bytes(4, "little"), 4)
                ct.memmove(ct.addressof(values) + 8 * total, (7 * number).to_bytes(8, "little"), 8)
                total += 1
            at += 1
        else:
            result = -errno.ENOENT
        end._obj.value, count._obj.value = at, total
        return result


@pytest.mark.parametrize("sizes", [(), (0, 0), (5,), (2, 3), (2, 0, 2, 2), (4, 7, 1), (0, 23, 0), (3, 3, 3, 3)])
def test_every_bucket_is_read_once(monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]) -> None:
    monkeypatch.setattr(module, "libbpf", lambda: Buckets(*sizes))
    found = [(int.from_bytes(key, "little"), int.from_bytes(value, "little")) for key, value in entries(SPEC, 0)]
    assert found == [(number, 7 * number) for number in range(sum(sizes))]


def test_another_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "libbpf", lambda: SimpleNamespace(bpf_map_lookup_batch=lambda *_: -errno.EFAULT))
    with pytest.raises(OSError, match="Bad address"):
        list(entries(SPEC, 0))
