"""Which files make an object, and what they read of the kernel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tracer.kernel.btf import FIELDS, Btf, header
from tracer.model.hooks import Backend
from tracer.probes import dax, mapping
from tracer.probes.build import FILES, text

#: The same with what tells of failures: the refusal of a call before the calls that it is of.
FAILURE_FILES: Final = (
    *FILES[: FILES.index("page_mkwrite.c")], "failure.h", "refused.h", "failure.c",
    *FILES[FILES.index("page_mkwrite.c") :], "mapping.h", "fault.c", "errno.c", "signal.c", "writeback.c",
    "forgotten.c",
)  # fmt: skip
#: What tells waits apart, after the others.
WAIT_FILES: Final = ("wait.c", "in_flight.c", "freeze.c")

#: What the programs of failures read beyond the others.
_MORE_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "super_block": ("s_flags", "s_fs_info", "s_blocksize_bits", "s_magic"),
    "inode": ("i_size", "i_blocks", "i_flags", "i_mode", "i_mapping", "i_dentry", "i_sb_list"),
    "address_space": ("host", "i_mmap_writable", "wb_err"),
    "file": ("f_mapping", "f_wb_err"),
    "dentry": ("d_inode",),
    "iattr": ("ia_valid", "ia_size"),
    "vm_operations_struct": ("fault",),
    "vm_area_struct": ("vm_start", "vm_pgoff"),
    "cred": ("uid",),
    "sighand_struct": ("action",),
    "kernel_siginfo": ("si_code", "_sifields"),
    "sigpending": ("signal",),
    "mm_struct": ("arg_start", "arg_end"),
    "task_struct": (
        "flags",
        "pagefault_disabled",
        "pending",
        "stack",
        "sighand",
        "blocked",
        "real_cred",
        "thread_pid",
        "real_parent",
    ),
    "pid": ("level", "numbers"),
}
#: What tells superblocks apart where no function is hooked that runs at their end (note_superblock, bpf/failure.c).
_SUPERBLOCK: Final[Mapping[str, tuple[str, ...]]] = {
    "super_block": ("s_root", "s_bdi", "s_uuid"),
    "inode": ("i_generation",),
    "backing_dev_info": ("id",),
}
_FIELDS: Final = {
    name: (*FIELDS.get(name, ()), *_MORE_FIELDS.get(name, ())) for name in dict.fromkeys([*FIELDS, *_MORE_FIELDS])
}


def source(btf: Btf, backend: Backend, failures: bool = False, waits: bool = False) -> str:
    """Return the C text of an object.

    ``failures``: with the programs that tell of each; ``waits``: with those that tell waits apart. Programs that were
    merely switched off would still cost: around them the compiler lays out worse what runs at every call.
    """
    defines, more = ("#define WAITS\n", WAIT_FILES) if waits else ("", ())
    fields: Mapping[str, tuple[str, ...]] = _FIELDS if failures else FIELDS
    if backend is Backend.TRACEPOINT:
        fields = {name: (*fields.get(name, ()), *_SUPERBLOCK.get(name, ())) for name in {**fields, **_SUPERBLOCK}}
    elif dax.known(btf):
        defines, fields, more = defines + dax.constants(btf), dax.extended(fields), (*more, dax.FILE)
    if not failures:
        return text(defines + header(btf, fields), backend, (*FILES, *more))
    fields = mapping.extended(fields, btf)
    alias = "d_u" if btf.has_field("dentry", "d_u") else "d_alias"
    defines += f"#define DENTRY_ALIAS {alias}\n"
    fields = {**fields, "dentry": (*fields["dentry"], alias)}
    defines += f"#define FAILURES\n{mapping.constants(btf)}"
    if btf.struct("backing_file") is not None:
        # 6.8: before, the file that an overlay maps has the overlay's path (fs/backing-file.c, include/linux/fs.h).
        defines += "#define HAS_BACKING_FILE\n"
        fields = {**fields, "file": (*fields["file"], "f_mode"), "backing_file": ("user_path",)}
    if btf.has_field("task_io_accounting", "syscr"):  # CONFIG_TASK_XACCT
        defines += "#define HAS_IO_COUNTS\n"
        fields = {"task_io_accounting": ("syscr", "syscw"), **fields, "task_struct": (*fields["task_struct"], "ioac")}
    return text(defines + header(btf, fields), backend, (*FAILURE_FILES, *more))
