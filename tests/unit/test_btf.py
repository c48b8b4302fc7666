"""Layout from BTF, recorded from four kernels (see data/reduce_btf.py)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import traceback
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.errors import Exit, MkwriteError
from tracer.kernel.btf import FIELDS, Btf, header

DATA: Final = Path(__file__).parent / "data"
KERNELS: Final = ("5.10", "6.1", "6.12", "7.3")

#: Offsets in bytes, by kernel; a single number where all agree. Taken from bpftool's C dump of the whole BTF by the
#: C compiler, not from our reader.
OFFSETS: Final[dict[str, dict[str, int | tuple[int, int, int, int]]]] = {
    "file_system_type": {"name": 0},
    "sb_writers": {"frozen": 0},
    "super_block": {"s_dev": 16, "s_type": (40, 40, 40, 56), "s_writers": (584, 600, 608, 608)},
    "inode": {"i_ino": 64, "i_sb": 40},
    "qstr": {"len": 4, "name": 8},
    "hlist_bl_node": {"pprev": 8},
    "dentry": {"d_hash": 8, "d_parent": 24, "d_name": 32},
    "vfsmount": {"mnt_root": 0},
    "mount": {"mnt_parent": 16, "mnt_mountpoint": 24, "mnt": 32},
    "path": {"mnt": 0, "dentry": 8},
    "file": {"f_inode": (32, 32, 40, 32), "f_path": (16, 16, 64, 64)},
    "vm_operations_struct": {"page_mkwrite": (64, 72, 72, 80)},
    "vm_area_struct": {
        "vm_flags": (80, 32, 32, 32),
        "vm_ops": (144, 96, 112, 72),
        "vm_file": (160, 112, 128, 88),
        "vm_mm": (64, 16, 16, 16),
    },
    "vm_fault": {
        "vma": 0,
        "pgoff": 16,
        "address": 24,
        "flags": (8, 40, 40, 40),
        "orig_pte": (48, 64, 64, 64),
        "pte": (72, 88, 88, 88),
    },
    "fs_struct": {"root": 24},
    "kernfs_node": {"id": (104, 104, 96, 96)},
    "cgroup_subsys_state": {"cgroup": 0, "parent": (192, 192, 192, 184)},
    "cgroup": {"self": 0, "kn": (248, 248, 256, 296)},
    "css_set": {"dfl_cgrp": (120, 128, 128, 128)},
    "sched_entity": {"prev_sum_exec_runtime": (88, 88, 104, 128)},
    "sched_info": {"last_arrival": (16, 16, 16, 32), "run_delay": 8},
    "task_struct": {
        "fs": (2800, 3040, 3040, 3480),
        "mm": (2056, 2272, 2304, 2744),
        "cgroups": (3328, 3600, 3584, 4072),
        "se": 128,
        "tgid": (2236, 2420, 2436, 2876),
        "pid": (2232, 2416, 2432, 2872),
        "comm": (2736, 2976, 2976, 3408),
        "sched_info": (1944, 2160, 2192, 2600),
        "nvcsw": (2520, 2760, 2760, 3200),
        "start_time": (2536, 2776, 2776, 3216),
        "start_boottime": (2544, 2784, 2784, 3224),
        "group_leader": (2296, 2480, 2496, 2936),
    },
}

#: Members that the programs compare or print as numbers, and their sizes in bytes on all four.
SIZES: Final = {
    "super_block.s_dev": 4,
    "inode.i_ino": 8,
    "qstr.len": 4,
    "vm_area_struct.vm_flags": 8,
    "vm_fault.pgoff": 8,
    "vm_fault.address": 8,
    "vm_fault.flags": 4,
    "vm_fault.orig_pte": 8,
    "kernfs_node.id": 8,
    "sched_entity.prev_sum_exec_runtime": 8,
    "sched_info.last_arrival": 8,
    "sched_info.run_delay": 8,
    "task_struct.nvcsw": 8,
    "task_struct.start_time": 8,
    "task_struct.start_boottime": 8,
    "task_struct.tgid": 4,
    "task_struct.pid": 4,
    "task_struct.comm": 16,
}

#: Chains of the programs, which must compile as they do in kernel code, and the type at their end.
CHAINS: Final = {
    "((struct vm_fault *)0)->vma->vm_file->f_inode->i_sb->s_type->name": "const char *",
    "((struct vm_fault *)0)->vma->vm_ops->page_mkwrite": "void *",
    "((struct file *)0)->f_path.dentry->d_parent->d_name.name": "const unsigned char *",
    "((struct file *)0)->f_path.mnt->mnt_root": "struct dentry *",
    "((struct mount *)0)->mnt_parent->mnt.mnt_root": "struct dentry *",
    "((struct task_struct *)0)->group_leader": "struct task_struct *",
    "((struct task_struct *)0)->fs->root.dentry": "struct dentry *",
    "((struct task_struct *)0)->cgroups->dfl_cgrp->kn": "struct kernfs_node *",
}


def blob(kernel: str) -> Path:
    return DATA / f"{kernel}.btf"


def layout(kernel: str) -> str:
    with Btf(blob(kernel)) as btf:
        return header(btf)


def compile_c(source: str) -> subprocess.CompletedProcess[str]:
    types = "".join(
        f"typedef unsigned {c} {ours};\n"
        for c, ours in (("char", "u8"), ("short", "u16"), ("int", "u32"), ("long long", "u64"))
    )
    command = ["cc", "-std=gnu11", "-fsyntax-only", "-x", "c", "-"]
    return subprocess.run(command, input=types + source, capture_output=True, text=True, check=False)


def offsets(kernel: str) -> dict[str, int]:
    index = KERNELS.index(kernel)
    return {
        f"{struct}.{member}": at if isinstance(at, int) else at[index]
        for struct, members in OFFSETS.items()
        for member, at in members.items()
    }


def test_an_offset_is_known_for_every_field_that_is_read() -> None:
    assert {struct: set(members) for struct, members in OFFSETS.items()} == {s: set(m) for s, m in FIELDS.items()}


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_header_puts_every_field_where_the_kernel_has_it(kernel: str) -> None:
    checks = [
        *(
            f"__builtin_offsetof(struct {name.replace('.', ', ')}) == {offset}"
            for name, offset in offsets(kernel).items()
        ),
        *(f"sizeof(((struct {name.replace('.', ' *)0)->')}) == {size}" for name, size in SIZES.items()),
    ]
    source = layout(kernel) + "".join(f'_Static_assert({check}, "{check}");\n' for check in checks)
    done = compile_c(source)
    assert done.returncode == 0, done.stderr


def test_the_check_of_offsets_can_fail() -> None:
    done = compile_c(layout("6.12") + '_Static_assert(__builtin_offsetof(struct file, f_inode) == 32, "moved");\n')
    assert "moved" in done.stderr


@pytest.mark.parametrize("kernel", KERNELS)
def test_pointers_lead_on_to_the_structs_that_the_programs_follow(kernel: str) -> None:
    uses = "".join(f"\t(void)({chain});\n" for chain in CHAINS)
    structs = "".join(
        f'_Static_assert(__builtin_types_compatible_p(typeof({chain}), {kind}), "{chain}");\n'
        for chain, kind in CHAINS.items()
        if kind.startswith("struct")
    )
    done = compile_c(f"{layout(kernel)}void use(void)\n{{\n{uses}}}\n{structs}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("kernel", "parameters"), list(zip(KERNELS, (1, 1, 2, 2), strict=True)))
def test_the_arity_of_the_core_function_is_that_of_the_kernel(kernel: str, parameters: int) -> None:
    with Btf(blob(kernel)) as btf:
        assert btf.arity("do_page_mkwrite") == parameters
        assert btf.arity("do_wp_page") == btf.arity("fault_dirty_shared_page") == 1


def test_a_function_that_is_not_there_has_no_arity() -> None:
    with Btf(blob("6.12")) as btf:
        assert btf.function("do_page_mkwrites") is None
        assert btf.function("vm_fault") is None  # a struct's name
        with pytest.raises(MkwriteError, match="no function do_page_mkwrites") as refusal:
            btf.arity("do_page_mkwrites")
        assert refusal.value.code is Exit.NO_HOOKS


@pytest.mark.parametrize("member", sorted({m for members in FIELDS.values() for m in members if m not in FIELDS}))
def test_a_member_that_is_gone_is_named(tmp_path: Path, member: str) -> None:
    # Renamed in the strings, so it is gone from every struct that has one of that name.
    before, after = (b"\0" + name.encode() + b"\0" for name in (member, "?" * len(member)))
    content = blob("6.12").read_bytes()
    assert content.count(before) == 1
    changed = tmp_path / "btf"
    changed.write_bytes(content.replace(before, after))
    with Btf(changed) as btf, pytest.raises(MkwriteError, match=rf"struct \w+ has no member {member}\.") as refusal:
        header(btf)
    assert refusal.value.code is Exit.NO_BTF


def test_a_struct_that_is_gone_is_named(tmp_path: Path) -> None:
    changed = tmp_path / "btf"
    changed.write_bytes(blob("6.12").read_bytes().replace(b"\0vm_fault\0", b"\0vm_fualt\0"))
    with Btf(changed) as btf, pytest.raises(MkwriteError, match="struct vm_fault has no member vma"):
        header(btf)


@pytest.mark.parametrize("content", [None, b"", b"\x9f\xeb", b"garbage" * 100, b"\x7fELF" + bytes(60)])
def test_what_is_no_btf_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "btf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MkwriteError, match=r"cannot be read from .*/btf") as refusal:
        Btf(path)
    assert refusal.value.code is Exit.NO_BTF


def test_a_closed_blob_may_be_closed_again() -> None:
    with Btf(blob("7.3")) as btf:
        btf.close()
    btf.close()


def outcome(path: Path) -> str:
    """What laying out a blob comes to, tried in a child: libbpf is C, and a bad blob could take us down with it."""
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        code = 3
        try:
            with Btf(path) as btf:
                header(btf)
                btf.arity("do_page_mkwrite")
            code = 0
        except MkwriteError:
            code = 1
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: "header", 1: "refused"}.get(status, f"crashed ({status})")


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(KERNELS), st.floats(0, 1, exclude_max=True))
def test_a_truncated_blob_is_refused(tmp_path_factory: pytest.TempPathFactory, kernel: str, share: float) -> None:
    content = blob(kernel).read_bytes()
    path = tmp_path_factory.getbasetemp() / "truncated.btf"
    path.write_bytes(content[: int(share * len(content))])
    assert outcome(path) == "refused"


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(KERNELS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from((0, 1, 2, 9, 0xFF, 0xFFFF, 0xFFFFFFFF)))),
)
def test_a_blob_with_wrong_numbers_in_it_never_crashes(
    tmp_path_factory: pytest.TempPathFactory, kernel: str, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(blob(kernel).read_bytes())
    for where, value in changes:
        at = int(where * (len(content) // 4)) * 4
        content[at : at + 4] = value.to_bytes(4, "little")
    path = tmp_path_factory.getbasetemp() / "corrupt.btf"
    path.write_bytes(content)
    assert outcome(path) in ("header", "refused")


def test_functions_that_programs_call_are_there_where_the_kernel_has_them() -> None:
    task, cast = "HELPER_bpf_get_current_task_btf", "KFUNC_bpf_rdonly_cast"
    expected = {"5.10": set(), "6.1": {task}, "6.12": {task, cast}, "7.3": {task, cast}}
    for kernel, names in expected.items():
        defined = dict(re.findall(r"(?m)^#define (\w+) (\d+)$", layout(kernel)))
        assert set(defined) == names | {"TYPE_vm_fault", "ARGUMENTS_do_page_mkwrite"}
        assert int(defined["ARGUMENTS_do_page_mkwrite"]) == (1 if kernel in ("5.10", "6.1") else 2)
        with Btf(blob(kernel)) as btf:
            assert int(defined["TYPE_vm_fault"]) == btf.struct("vm_fault")
