"""A map of this kernel is read whole, though not every bucket fits into what there is room for."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tracer.probes.entries import entries
from tracer.probes.program import MapSpec, create_maps, insert

pytestmark = pytest.mark.native
#: A hash map of 4 bytes each.
SPEC = MapSpec(1, 4, 4, 64, 0, None, None)


@pytest.mark.parametrize("room", [1, 7, 64])
def test_each_entry_is_read_once(room: int) -> None:
    """Of 64 entries in 64 buckets, two are in one; it does not fit where there is room for one."""
    descriptor = create_maps({"entries": SPEC})["entries"]
    try:
        wanted = [(number.to_bytes(4, "little"), (3 * number).to_bytes(4, "little")) for number in range(64)]
        for key, value in wanted:
            insert(descriptor, key, value)
        assert sorted(entries(replace(SPEC, max_entries=room), descriptor)) == sorted(wanted)
    finally:
        os.close(descriptor)
