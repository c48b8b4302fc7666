"""The part of bench/profile that runs in the guest: the same fault again and again, untraced and then traced."""

from __future__ import annotations

import contextlib
import ctypes as ct
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from bench import faults
from bench.own import CASES
from tracer.kernel.libbpf import checked, libbpf


class _ProgInfo(ct.Structure):
    """The start of struct bpf_prog_info (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("tag", ct.c_uint8 * 8),
        ("jited_prog_len", ct.c_uint32),
        ("xlated_prog_len", ct.c_uint32),
        ("jited_prog_insns", ct.c_uint64),
        ("xlated_prog_insns", ct.c_uint64),
    )


def take_faults(share: Path, phase: str, kind: str) -> None:
    """Take faults of one kind until the host has seen enough."""
    storm, path = (*faults.KINDS[kind], str(faults.PLACE / "ext4/file"))[:2]
    (share / f"{phase}.kallsyms").write_text(Path("/proc/kallsyms").read_text())
    with subprocess.Popen([faults.PLACE / "workload", "storm", storm, path, "1000", "1"]) as running:
        time.sleep(1)
        (share / f"{phase}.ready").touch()
        while not (share / f"{phase}.done").exists():
            time.sleep(0.1)
        running.kill()


def keep_code(share: Path) -> None:
    """Write down every program's machine code."""
    for program in json.loads(faults.run("bpftool", "-j", "prog", "list")):
        code = (ct.c_char * program["bytes_jited"])()
        info = _ProgInfo(jited_prog_len=len(code), jited_prog_insns=ct.addressof(code))
        length = ct.c_uint32(ct.sizeof(info))
        descriptor = checked(libbpf().bpf_prog_get_fd_by_id(program["id"]))
        checked(libbpf().bpf_obj_get_info_by_fd(descriptor, ct.byref(info), ct.byref(length)))
        os.close(descriptor)
        (share / f"{program['tag']}.image").write_bytes(code.raw)


def main() -> None:
    """Both phases."""
    share, case, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    faults.prepare()
    take_faults(share, "untraced", kind)
    # These are not the faults whose number a case expects.
    with contextlib.suppress(RuntimeError), CASES[case]():
        keep_code(share)
        take_faults(share, "traced", kind)


if __name__ == "__main__":
    main()
