"""Writing settings into bytecode, and what BCC says of types."""

from __future__ import annotations

import ctypes as ct
import json
import struct
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.probes.program import BpfObject, MapSpec, c_type, kernel_calls

CONFIG: Final = 0x6D6B7772 << 32
GLOBAL: Final = 0x6D6B7767 << 32
EXIT: Final = bytes([0x95]) + bytes(7)
PSEUDO_MAP_FD: Final = 1

U64 = st.integers(0, (1 << 64) - 1)
REGISTERS = st.integers(0, 10)


def lddw(register: int, value: int, source: int = 0) -> bytes:
    """A load of a 64-bit immediate, the only instruction of two slots."""
    low, high = value & 0xFFFFFFFF, value >> 32
    return struct.pack("<BBhIBBhI", 0x18, source << 4 | register, 0, low, 0, 0, 0, high)


def made(code: bytes) -> BpfObject:
    spec = MapSpec(2, 4, 64, 1, 0, "unsigned int", "unsigned long long")
    return BpfObject({"rows": spec, "hash": spec}, {"p": code}, {"p": ()})


def configured(code: bytes, settings: Sequence[int]) -> bytes:
    return made(code).configured(dict(enumerate(settings)), {}, {}).programs["p"]


def test_a_setting_replaces_its_mark_only() -> None:
    other = 0x6D6B7771 << 32 | 1
    code = lddw(1, CONFIG | 1) + lddw(2, other) + lddw(3, CONFIG) + EXIT
    assert configured(code, [7, 1 << 40 | 5]) == lddw(1, 1 << 40 | 5) + lddw(2, other) + lddw(3, 7) + EXIT


def test_a_mark_in_the_last_instruction_is_found() -> None:
    assert configured(lddw(4, CONFIG), [9]) == lddw(4, 9)


#: Pieces of code that no setting may change.
PLAIN = st.one_of(
    st.binary(min_size=8, max_size=8).filter(lambda code: code[0] != 0x18),
    # Other instructions with the mark's bytes as their immediate.
    st.integers(0, 255).filter(lambda opcode: opcode != 0x18).map(lambda o: bytes([o, 0, 0, 0]) + b"rwkm"),
    st.builds(lddw, REGISTERS, U64.filter(lambda value: value >> 32 != CONFIG >> 32)),
    st.builds(lambda register, n: lddw(register, GLOBAL | n), REGISTERS, st.integers(0, 4)),
    # A map's descriptor, whatever its value.
    st.builds(lambda register, n: lddw(register, CONFIG | n, PSEUDO_MAP_FD), REGISTERS, st.integers(0, 4)),
)


@given(st.lists(PLAIN, max_size=40))
def test_code_without_marks_is_left_alone(pieces: list[bytes]) -> None:
    code = b"".join(pieces)
    assert configured(code, []) == code


@given(
    st.lists(U64, min_size=5, max_size=5),
    st.lists(st.one_of(PLAIN, st.tuples(REGISTERS, st.integers(0, 4))), max_size=40),
)
def test_every_mark_becomes_its_setting_and_nothing_else_changes(
    settings: list[int], pieces: list[bytes | tuple[int, int]]
) -> None:
    before = b"".join(p if isinstance(p, bytes) else lddw(p[0], CONFIG | p[1]) for p in pieces)
    after = b"".join(p if isinstance(p, bytes) else lddw(p[0], settings[p[1]]) for p in pieces)
    original = made(before)
    assert original.configured(dict(enumerate(settings)), {}, {}).programs["p"] == after
    assert original.programs["p"] == before


def test_a_map_grows_by_rows_or_by_entries_and_the_rest_stays() -> None:
    original = made(b"")
    maps = original.configured({}, {"rows": 3}, {"hash": 99}).maps
    assert (maps["rows"].value_size, maps["rows"].max_entries) == (192, 1)
    assert (maps["hash"].value_size, maps["hash"].max_entries) == (64, 99)
    assert original.configured({}, {}, {}) == original == made(b"")


INNER: Final = ["inner", [["a", "unsigned int"], ["b", "unsigned long long"]], "struct"]


def test_a_struct_within_a_struct_and_arrays_lie_as_c_lays_them() -> None:
    kind = c_type(["outer", [["x", "unsigned char"], ["y", INNER], ["z", "unsigned long long", [128]]], "struct"])
    assert (kind.x.offset, kind.y.offset, kind.z.offset, ct.sizeof(kind)) == (0, 8, 24, 24 + 1024)
    value = kind.from_buffer_copy(struct.pack("<B7xI4xQ128Q", 1, 2, 3, *range(128)))
    assert (value.x, value.y.a, value.y.b, list(value.z)) == (1, 2, 3, list(range(128)))


def test_an_array_of_structs() -> None:
    kind = c_type(["outer", [["rows", INNER, [3]]], "struct"])
    assert ct.sizeof(kind) == 48
    value = kind.from_buffer_copy(struct.pack("<I4xQI4xQI4xQ", *range(6)))
    assert [(row.a, row.b) for row in value.rows] == [(0, 1), (2, 3), (4, 5)]


@pytest.mark.parametrize(
    ("name", "size", "negative"),
    [
        ("unsigned char", 1, False),
        ("unsigned short", 2, False),
        ("int", 4, True),
        ("unsigned int", 4, False),
        ("long long", 8, True),
        ("unsigned long", 8, False),
        ("unsigned long long", 8, False),
    ],
)
def test_scalars_have_the_size_and_sign_that_c_gives_them(name: str, size: int, negative: bool) -> None:
    kind = c_type(name)
    assert ct.sizeof(kind) == size
    assert (kind.from_buffer_copy(b"\xff" * size).value < 0) is negative


def test_text_reads_to_its_nul() -> None:
    kind = c_type(["named", [["name", "char", [16]]], "struct"])
    assert kind.from_buffer_copy(b"ext4".ljust(16, b"\0")).name == b"ext4"


def test_a_type_that_is_not_known_is_an_error_and_no_guess() -> None:
    with pytest.raises(KeyError, match="long double"):
        c_type(["outer", [["x", "long double"]], "struct"])


SCALARS = st.sampled_from(["unsigned int", "unsigned long long"])
SPECS = st.builds(
    MapSpec,
    type=st.integers(0, 40),
    key_size=st.integers(0, 64),
    value_size=st.integers(0, 4096),
    max_entries=st.integers(0, 1 << 20),
    flags=st.integers(0, 1 << 12),
    key=SCALARS,
    value=st.one_of(SCALARS, st.just(INNER), st.none()),
)


@given(
    st.dictionaries(st.text(max_size=8), SPECS, max_size=4),
    st.dictionaries(st.text(max_size=8), st.binary(max_size=64), max_size=4),
    st.dictionaries(st.text(max_size=8), st.lists(st.tuples(st.integers(0, 999), st.text(max_size=8)), max_size=3)),
)
def test_an_object_comes_back_from_json_as_it_was(
    maps: dict[str, MapSpec], programs: dict[str, bytes], references: dict[str, list[tuple[int, str]]]
) -> None:
    written = json.dumps(
        {
            "bcc": "0.31.0",
            "maps": {name: asdict(spec) for name, spec in maps.items()},
            "programs": {name: code.hex() for name, code in programs.items()},
            "references": references,
        }
    )
    expected = BpfObject(maps, programs, {name: tuple(refs) for name, refs in references.items()})
    assert BpfObject.from_json(json.loads(written)) == expected


def test_a_marked_call_becomes_a_call_of_a_kernel_function() -> None:
    helper, marked, local = (struct.pack("<BBhI", 0x85, source, 0, number) for source, number in
                             ((0, 14), (0, 0x40000000 | 4711), (1, 0xFFFFFFFF)))  # fmt: skip
    assert kernel_calls(helper + marked + local) == helper + struct.pack("<BBhI", 0x85, 0x20, 0, 4711) + local
