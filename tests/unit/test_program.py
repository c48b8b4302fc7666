"""Writing settings into bytecode, and what BCC says of types."""

from __future__ import annotations

import ctypes as ct
import struct

from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel.btf import Btf, header
from tracer.model import Backend
from tracer.probes import program
from tracer.probes.build import build, text
from tracer.probes.program import BpfObject, MapSpec, c_type


def _lddw(register: int, value: int) -> bytes:
    return struct.pack("<BBhIBBhI", 0x18, register, 0, value & 0xFFFFFFFF, 0, 0, 0, value >> 32)


def _object(code: bytes) -> BpfObject:
    spec = MapSpec(2, 4, 64, 1, 0, "unsigned int", "unsigned long long")
    return BpfObject({"rows": spec, "hash": spec}, {"p": code}, {"p": ()})


def test_a_setting_replaces_its_mark_only() -> None:
    exit_ = bytes([0x95]) + bytes(7)
    mark, other = 0x6D6B7772 << 32, 0x6D6B7771 << 32 | 1
    code = _lddw(1, mark | 1) + _lddw(2, other) + _lddw(3, mark) + exit_
    found = _object(code).configured([7, 1 << 40 | 5], {}, {}).programs["p"]
    assert found == _lddw(1, 1 << 40 | 5) + _lddw(2, other) + _lddw(3, 7) + exit_


@given(st.binary(max_size=400).map(lambda data: data[: len(data) // 8 * 8]))
def test_code_without_marks_is_left_alone(code: bytes) -> None:
    if b"rwkm" not in code:
        assert _object(code).configured([], {}, {}).programs["p"] == code


def test_sizes_of_maps() -> None:
    maps = _object(b"").configured([], {"rows": 3}, {"hash": 99}).maps
    assert (maps["rows"].value_size, maps["rows"].max_entries) == (192, 1)
    assert (maps["hash"].value_size, maps["hash"].max_entries) == (64, 99)


def test_types_as_bcc_describes_them() -> None:
    inner = ["inner", [["a", "unsigned int"], ["b", "unsigned long long"]], "struct"]
    kind = c_type(["outer", [["x", "unsigned char"], ["y", inner], ["z", "unsigned long long", [128]]], "struct"])
    assert (kind.y.offset, kind.z.offset, ct.sizeof(kind)) == (8, 24, 24 + 1024)


#: TELL_RACED to WANT_CALL of bpf/config.h, then CPUS, FRONT_BITS, SLOT_BITS.
SETTINGS = (
    [1, 0, 0, (1 << 64) - 1, 0, 0, 0, 0, 2, 6, 13],
    [1, 0, 0, 1_000_000, 2, 1, 7, 56, 2, 6, 13],
    [0, 0, 1, 1000, 1, 1, 0, 0, 2, 6, 13],
)


def test_this_kernels_verifier_takes_every_program() -> None:
    # Built for kprobes, loaded as tracepoint programs: a kernel without kprobes verifies those as well.
    with Btf() as btf:
        compiled = build(text(header(btf), Backend.KPROBE))
    for settings in SETTINGS:
        configured = compiled.configured(settings, {"slots": 1 << 13, "front": 2 << 6, "wp_counts": 2}, {})
        maps = program.create_maps(configured)
        for name in configured.programs:
            assert program.load(configured, name, maps, kind=5) > 0
