"""What bpf/mapping.h needs to know of this kernel to find a mapping: in a maple tree (6.1), or a balanced one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracer.kernel.btf import Btf

_WORD: Final = 8
_COMMON: Final = {
    "thread_struct": ("cr2", "trap_nr", "error_code"),
    "vm_area_struct": ("vm_end",),
    "task_struct": ("thread",),
}
_MAPLE: Final = {"maple_tree": ("ma_root",), "mm_struct": ("mm_mt",)}
_BALANCED: Final = {
    "rb_node": ("rb_left", "rb_right"),
    "rb_root": ("rb_node",),
    "vm_area_struct": ("vm_rb",),
    "mm_struct": ("mm_rb",),
}


def extended(fields: Mapping[str, tuple[str, ...]], btf: Btf) -> dict[str, tuple[str, ...]]:
    """``fields`` and what the program reads beyond them."""
    result = dict(fields)
    for more in (_COMMON, _MAPLE if _has_maple_tree(btf) else _BALANCED):
        for struct, names in more.items():
            result[struct] = tuple(dict.fromkeys((*result.get(struct, ()), *names)))
    return result


def constants(btf: Btf) -> str:
    """C definitions: which tree it is, and the shape of its nodes."""
    if not _has_maple_tree(btf):
        return ""
    pivots = btf.field("maple_range_64", "pivot").offset
    lines = ["#define HAS_MAPLE_TREE\n", f"#define MAPLE_PIVOTS {pivots}\n"]
    for kind in ("range", "arange"):
        slots = btf.field(f"maple_{kind}_64", "slot").offset
        lines.append(f"#define MAPLE_{kind.upper()}_PIVOTS {(slots - pivots) // _WORD}\n")
    return "".join(lines)


def _has_maple_tree(btf: Btf) -> bool:
    return btf.struct("maple_tree") is not None
