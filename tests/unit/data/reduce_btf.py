"""Records what ``tracer.kernel.btf`` reads of a kernel's BTF as a blob of a few KB, for the tests to lay out.

Usage: ``python -m tests.unit.data.reduce_btf KERNEL OUTPUT``. KERNEL is a bzImage, an ELF vmlinux or a BTF blob such as
/sys/kernel/btf/vmlinux. OUTPUT holds every struct of ``FIELDS`` with all its members, and ``FUNCTIONS`` with their
parameters, in the order of ids 1, 2, 3...; all other structs are left without members, and members that are not read
get one type for all: record again when ``FIELDS`` changes. The format is that of include/uapi/linux/btf.h.
"""

from __future__ import annotations

import ctypes as ct
import re
import struct
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.vm.prepare import vmlinux
from tracer.kernel.btf import FIELDS, HELPERS, KFUNCS, Btf, header
from tracer.kernel.libbpf import libbpf

FUNCTIONS: Final = ("do_page_mkwrite", "do_wp_page", "fault_dirty_shared_page")

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("<HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
_HEAD: Final = struct.Struct("<III")  # name_off, info, size or type
# enum btf_kind
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _FUNC, _FUNC_PROTO, _ENUM64 = 1, 2, 3, 4, 5, 6, 7, 12, 13, 19
_MODIFIERS: Final = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag
#: What follows a type's head, in bytes: so many, or so many for each of its ``vlen``.
_FIXED: Final = {_INT: 4, _ARRAY: 12, 14: 4, 17: 4}  # ..., variable, declaration tag
_EACH: Final = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, 15: 12, _ENUM64: 12}  # ..., data section
_UNREAD: Final = "not_read"


@dataclass(frozen=True)
class _Type:
    name: str
    info: int
    size: int  # or the id of the type that it refers to
    rest: bytes

    @property
    def kind(self) -> int:
        return self.info >> 24 & 0x1F

    @property
    def triples(self) -> list[tuple[int, int, int]]:
        """Name offset, type and bit offset of a struct's members; of an array: element, index type and length."""
        return list(_HEAD.iter_unpack(self.rest))


class _Source:
    """A blob taken apart: ``types[id]``."""

    def __init__(self, blob: bytes) -> None:
        magic, _, _, head, type_off, type_len, str_off, str_len = _HEADER.unpack_from(blob)
        if magic != _MAGIC:
            raise ValueError("not little-endian BTF")
        self._strings = blob[head + str_off : head + str_off + str_len]
        self.types = [_Type("", 0, 0, b"")]
        at, end = head + type_off, head + type_off + type_len
        while at < end:
            name, info, size = _HEAD.unpack_from(blob, at)
            kind, vlen = info >> 24 & 0x1F, info & 0xFFFF
            rest = at + _HEAD.size
            at = rest + _FIXED.get(kind, 0) + _EACH.get(kind, 0) * vlen
            self.types.append(_Type(self.string(name), info, size, blob[rest:at]))

    def string(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def find(self, kind: int, name: str) -> int:
        """The id that libbpf finds: the first."""
        return next(i for i, found in enumerate(self.types) if found.kind == kind and found.name == name)


class _Reduction:
    """The types asked for and those that they need, renumbered."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._numbers: dict[int, int] = {0: 0}
        self._wanted: list[int] = []
        self._strings = bytearray(b"\0")
        self._offsets: dict[str, int] = {"": 0}
        #: Anonymous structs and unions whose members belong to the struct around them, and that struct's name.
        self._owners: dict[int, str] = {}

    def number(self, type_id: int) -> int:
        """The new id of a type, which is then written too."""
        if type_id not in self._numbers:
            self._wanted.append(type_id)
            self._numbers[type_id] = len(self._wanted)
        return self._numbers[type_id]

    def blob(self) -> bytes:
        types = bytearray()
        written = 0
        while written < len(self._wanted):  # writing a type may want others
            types += self._write(self._wanted[written])
            written += 1
        # The type of what is not read comes last, where its id is known at last.
        types = types.replace(_PLACEHOLDER, struct.pack("<I", written + 1))
        types += _HEAD.pack(self._string(_UNREAD), _INT << 24, 1) + struct.pack("<I", 8)
        head = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types), len(self._strings))
        return head + bytes(types) + bytes(self._strings)

    def _string(self, text: str) -> int:
        if text not in self._offsets:
            self._offsets[text] = len(self._strings)
            self._strings += text.encode() + b"\0"
        return self._offsets[text]

    def _write(self, type_id: int) -> bytes:
        found = self._source.types[type_id]
        info, size, rest = found.info, found.size, found.rest
        if found.kind in (_PTR, _FUNC, _FUNC_PROTO, *_MODIFIERS):
            size = self.number(found.size)
        if found.kind == _ARRAY:
            ((element, index, length),) = found.triples
            rest = _HEAD.pack(self.number(element), self.number(index), length)
        elif found.kind == _FUNC_PROTO:
            parameters = struct.iter_unpack("<II", rest)
            rest = b"".join(struct.pack("<II", self._renamed(name), self.number(of)) for name, of in parameters)
        elif found.kind in (_STRUCT, _UNION, _ENUM, _ENUM64):
            owner = self._owners.get(type_id, found.name if found.kind == _STRUCT else "")
            if owner in FIELDS:
                rest = b"".join(self._member(owner, *triple) for triple in found.triples)
            else:
                info, rest = info & ~0xFFFF, b""  # a size is all that anyone asks of it
        return _HEAD.pack(self._string(found.name), info, size) + rest

    def _renamed(self, name_off: int) -> int:
        return self._string(self._source.string(name_off))

    def _member(self, owner: str, name_off: int, type_id: int, bits: int) -> bytes:
        name = self._source.string(name_off)
        if not name:
            self._owners[self._plain(type_id)] = owner
        number = struct.pack("<I", self.number(type_id)) if not name or name in FIELDS[owner] else _PLACEHOLDER
        return struct.pack("<I", self._string(name)) + number + struct.pack("<I", bits)

    def _plain(self, type_id: int) -> int:
        while (found := self._source.types[type_id]).kind in _MODIFIERS:
            type_id = found.size
        return type_id


#: Stands for the id of what is not read until all types are written; no id is that large.
_PLACEHOLDER: Final = b"\xff\xfe\xfd\xfc"


def reduced(blob: bytes) -> bytes:
    """A blob of the same layout for our purpose. Raises StopIteration if a struct or function is not there at all."""
    source = _Source(blob)
    reduction = _Reduction(source)
    for name in FIELDS:
        reduction.number(source.find(_STRUCT, name))
    for name in FUNCTIONS:
        reduction.number(source.find(_FUNC, name))
    for name in (*KFUNCS, *HELPERS):
        with suppress(StopIteration):  # not in older kernels
            reduction.number(source.find(_FUNC, name))
    return reduction.blob()


def full(kernel: Path) -> bytes:
    """The BTF in a bzImage, ELF file or blob."""
    with tempfile.NamedTemporaryFile() as unpacked:
        with kernel.open("rb") as stream:
            if stream.read(0x206).endswith(b"HdrS"):
                unpacked.write(vmlinux(kernel))
                unpacked.flush()
                kernel = Path(unpacked.name)
        lib = libbpf()
        lib.btf__raw_data.restype = ct.c_void_p
        lib.btf__raw_data.argtypes = (ct.c_void_p, ct.POINTER(ct.c_uint32))
        parsed = lib.btf__parse(bytes(kernel), None)
        if not parsed:
            raise ValueError(f"{kernel} holds no BTF")
        size = ct.c_uint32()
        return ct.string_at(lib.btf__raw_data(parsed, ct.byref(size)), size.value)


def _header(blob: bytes) -> str:
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(blob)
        stream.flush()
        with Btf(Path(stream.name)) as btf:
            return header(btf)


def main(kernel: str, output: str) -> None:
    """Write the reduction, having checked that it gives the same header as the whole."""
    blob = full(Path(kernel))
    small = reduced(blob)
    numbers = re.compile(r"(?m)^(#define \w+) \d+$")  # ids, which the reduction gives anew
    if numbers.sub(r"\1", _header(small)) != numbers.sub(r"\1", _header(blob)):
        raise ValueError("the reduction has another layout")
    Path(output).write_bytes(small)


if __name__ == "__main__":
    main(*sys.argv[1:])
