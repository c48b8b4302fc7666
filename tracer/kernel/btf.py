"""The running kernel's types, read from its BTF with libbpf, and the C header made from them.

The BPF programs name kernel fields as kernel code does. The header declares each struct with only the fields that they
read, at the offsets of this kernel, so no kernel headers are needed and a field that is gone is an error here.
"""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.errors import Exit, MkwriteError
from tracer.kernel.libbpf import libbpf
from tracer.kernel.parsing import is_foreign

VMLINUX: Final = Path("/sys/kernel/btf/vmlinux")
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
#: What is wrong where another kernel's types hide the running one's, and what to do.
FOREIGN: Final = (
    f"The types at {VMLINUX} are not the running kernel's own: another file was mounted there.",
    "Mount this host's sysfs at /sys, and nothing over it.",
)

#: The fields that the BPF programs read; an embedded struct comes before the struct that embeds it.
FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "file_system_type": ("name",),
    "sb_writers": ("frozen",),
    "super_block": ("s_dev", "s_type", "s_writers"),
    "inode": ("i_ino", "i_sb"),
    "qstr": ("len", "name"),
    "hlist_bl_node": ("pprev",),
    "dentry": ("d_hash", "d_parent", "d_name"),
    "vfsmount": ("mnt_root",),
    "mount": ("mnt_parent", "mnt_mountpoint", "mnt"),
    "path": ("mnt", "dentry"),
    "file": ("f_inode", "f_path"),
    "vm_operations_struct": ("page_mkwrite",),
    "vm_area_struct": ("vm_flags", "vm_ops", "vm_file", "vm_mm"),
    "vm_fault": ("vma", "pgoff", "address", "flags", "orig_pte", "pte"),
    "fs_struct": ("root",),
    "kernfs_node": ("id",),
    "cgroup_subsys_state": ("cgroup", "parent"),
    "cgroup": ("self", "kn"),
    "css_set": ("dfl_cgrp",),
    "sched_entity": ("prev_sum_exec_runtime",),
    "sched_info": ("last_arrival", "run_delay"),
    "task_struct": (
        "fs",
        "cgroups",
        "se",
        "sched_info",
        "nvcsw",
        "start_time",
        "start_boottime",
        "group_leader",
        "tgid",
        "pid",
        "comm",
        "mm",
    ),
}

#: Kernel functions that the BPF programs call where the kernel has them (bpf/kfunc.h).
KFUNCS: Final = ("bpf_rdonly_cast",)
#: Helpers that newer kernels have, used where they are there.
HELPERS: Final = ("bpf_get_current_task_btf",)
#: Structs that a kprobe program has the bare address of.
_TYPED: Final = ("vm_fault",)
#: The function whose return value programs read: behind its arguments.
_CORE: Final = "do_page_mkwrite"

# enum btf_kind, include/uapi/linux/btf.h
_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FUNC, _FUNC_PROTO, _ENUM64 = 1, 2, 3, 4, 5, 6, 12, 13, 19
_TYPEDEF: Final = 8
_MODIFIERS: Final = frozenset({8, 9, 10, 11, 18})  # typedef, volatile, const, restrict, type tag
_DEPTH: Final = 32  # of types that only modify others, as in libbpf
_SCALARS: Final = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}


class _Type(ct.Structure):
    """struct btf_type (include/uapi/linux/btf.h)."""

    _fields_ = (("name_off", ct.c_uint32), ("info", ct.c_uint32), ("size", ct.c_uint32))
    name_off: int
    info: int
    size: int

    @property
    def kind(self) -> int:
        return self.info >> 24 & 0x1F

    @property
    def vlen(self) -> int:
        return self.info & 0xFFFF


@dataclass(frozen=True, slots=True)
class Field:
    """A struct's member: its offset in bytes, and its declaration with ``%s`` where the name stands."""

    offset: int
    declaration: str


class Btf:
    """One BTF blob. Close it (or use ``with``) when the questions are asked: it holds some 6 MB."""

    def __init__(self, path: Path = VMLINUX) -> None:
        self._lib = libbpf()
        self._path = path
        self._btf = None
        self._numbers: dict[tuple[str, int], int | None] = {}
        # Programs with another kernel's offsets may load all the same, and read nonsense.
        if path == VMLINUX and path.exists() and is_foreign(_MOUNTINFO.read_text(errors="replace"), path):
            raise MkwriteError(*FOREIGN, Exit.FOREIGN_BTF)
        self._btf = self._lib.btf__parse(bytes(path), None)
        if not self._btf:
            raise self._unreadable()

    def __enter__(self) -> Btf:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the blob."""
        if self._btf:
            self._lib.btf__free(self._btf)
            self._btf = None

    def function(self, name: str) -> int | None:
        """Return the BTF id of a kernel function, None if there is none."""
        return self._number(name, _FUNC)

    def arity(self, function: str) -> int:
        """How many parameters a kernel function takes: a fexit program finds the return value behind them."""
        number = self.function(function)
        if number is None:
            raise MkwriteError(
                f"The kernel's type information has no function {function}.",
                "Use --backend kprobe, or a kernel built with CONFIG_DEBUG_INFO_BTF=y.",
                Exit.NO_HOOKS,
            )
        return self._type(self._type(number).size).vlen

    def tracepoint(self, name: str) -> int:
        """How many arguments a tracepoint passes to raw tracepoint programs (include/trace/bpf_probe.h)."""
        number = self._number(f"btf_trace_{name}", _TYPEDEF)
        if number is None:
            raise MkwriteError(
                f"This kernel has no tracepoint {name}.",
                "What it would tell is missing; everything else goes on without it.",
                Exit.NO_HOOKS,
            )
        # A pointer to a function, whose first parameter is the kernel's own.
        return self._type(self._plain(self._type(self._plain(number)).size)).vlen - 1

    def field(self, struct: str, name: str) -> Field:
        """Where a struct keeps a member, anonymous members searched too."""
        number = self.struct(struct)
        if number is not None:
            for member, offset, type_id in self._members(number):
                if member == name:
                    return Field(offset, self._declaration(type_id))
        raise MkwriteError(
            f"This kernel's struct {struct} has no member {name}.",
            "This version of mkwrite does not know this kernel: report it with the kernel's version.",
            Exit.NO_BTF,
        )

    def has_field(self, struct: str, name: str) -> bool:
        """Whether the kernel has a struct with this member."""
        number = self.struct(struct)
        return number is not None and any(member == name for member, _, _ in self._members(number))

    def struct(self, name: str) -> int | None:
        """Return the BTF id of a struct, None if there is none."""
        return self._number(name, _STRUCT)

    def _number(self, name: str, kind: int) -> int | None:
        """Return the id of a type, None if there is none; libbpf compares the names of all types, so ask once."""
        key = name, kind
        if key not in self._numbers:
            found: int = self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind)
            self._numbers[key] = found if found > 0 else None
        return self._numbers[key]

    def _unreadable(self) -> MkwriteError:
        return MkwriteError(
            f"The kernel's type information cannot be read from {self._path}.",
            "Boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as the distributions' kernels are.",
            Exit.NO_BTF,
        )

    # libbpf checks the blob's sections, but not every number in them.
    def _type(self, number: int) -> _Type:
        address: int | None = self._lib.btf__type_by_id(self._btf, number)
        if address is None:
            raise self._unreadable()
        return _Type.from_address(address)

    def _name(self, offset: int) -> str:
        found: bytes | None = self._lib.btf__name_by_offset(self._btf, offset)
        if found is None:
            raise self._unreadable()
        return found.decode(errors="replace")

    def _plain(self, number: int) -> int:
        for _ in range(_DEPTH):
            found = self._type(number)
            if found.kind not in _MODIFIERS:
                return number
            number = found.size
        raise self._unreadable()

    def _members(self, number: int, base: int = 0, around: tuple[int, ...] = ()) -> Iterator[tuple[str, int, int]]:
        """Name, byte offset and type of each named member, those of anonymous members included."""
        if number in around:  # a struct within itself
            raise self._unreadable()
        struct = self._type(number)
        first = ct.addressof(struct) + ct.sizeof(_Type)
        for index in range(struct.vlen):
            name_off, type_id, bits = (ct.c_uint32 * 3).from_address(first + 12 * index)
            # With the kind flag, the upper byte holds a bitfield's width.
            offset = base + ((bits & 0xFFFFFF if struct.info >> 31 else bits) >> 3)
            if name := self._name(name_off):
                yield name, offset, type_id
            else:
                plain = self._plain(type_id)
                if self._type(plain).kind in (_STRUCT, _UNION):
                    yield from self._members(plain, offset, (*around, number))

    def _declaration(self, type_id: int) -> str:
        plain = self._plain(type_id)
        found = self._type(plain)
        if found.kind == _PTR:
            target = self._type(self._plain(found.size))
            if target.kind == _STRUCT and (name := self._name(target.name_off)):
                return f"struct {name} *%s"
            return "void *%s"
        if found.kind == _STRUCT and (name := self._name(found.name_off)) in FIELDS:
            return f"struct {name} %s"
        size: int = self._lib.btf__resolve_size(self._btf, plain)
        if size < 0:
            raise self._unreadable()
        # An array without a length goes on behind the struct.
        size = size or 1
        return f"{_SCALARS[size]} %s" if size in _SCALARS else f"u8 %s[{size}]"


def header(btf: Btf, fields: Mapping[str, tuple[str, ...]] = FIELDS) -> str:
    """C declarations of every struct of ``fields`` as this kernel lays it out, and the ids of what programs name."""
    lines = ["/* Made from this kernel's BTF. */"]
    for struct, names in fields.items():
        lines.append(f"struct {struct} {{ union {{")
        for name in dict.fromkeys(names):
            field = btf.field(struct, name)
            pad = f"char _{name}[{field.offset}]; " if field.offset else ""
            lines.append(f"\tstruct {{ {pad}{field.declaration % name}; }};")
        lines.append("}; };")
    numbers = {f"KFUNC_{name}": btf.function(name) for name in KFUNCS}
    numbers |= {f"HELPER_{name}": btf.function(name) for name in HELPERS}
    numbers |= {f"TYPE_{name}": btf.struct(name) for name in _TYPED}
    numbers[f"ARGUMENTS_{_CORE}"] = btf.arity(_CORE) if btf.function(_CORE) else 0
    lines += [f"#define {name} {number}" for name, number in numbers.items() if number is not None]
    return "\n".join(lines) + "\n"
