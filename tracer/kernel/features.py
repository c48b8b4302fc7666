"""What this kernel allows a tracer, and which privileges and libraries this process has: the bare facts.

``read`` looks at every fact once, in some 0.1 s; what follows from them is in ``tracer.kernel.checks``.
A fact that this process may not read is None, and its file is named in ``Features.unread``.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.kernel.libraries import Bcc, read_bcc
from tracer.kernel.parsing import (
    Lockdown,
    is_foreign,
    parse_blacklist,
    parse_capabilities,
    parse_cpus,
    parse_lockdown,
    parse_memlock,
    parse_mounts,
    parse_patched,
    parse_seccomp,
    parse_traceable,
)
from tracer.kernel.preemption import MODE, preemptible
from tracer.kernel.symbols import Symbols

#: The functions that the hooks attach to, the necessary one first.
FUNCTIONS: Final = ("do_page_mkwrite", "fault_dirty_shared_page", "do_wp_page")

# Inode numbers of the initial namespaces (include/linux/proc_ns.h).
_INIT_USER, _INIT_PID = "user:[4026531837]", "pid:[4026531836]"

# enum bpf_prog_type, and BPF_TRACE_FENTRY of enum bpf_attach_type (include/uapi/linux/bpf.h).
KPROBE_PROGRAM, TRACING_PROGRAM = 2, 26
_TRACE_FENTRY, _PROG_LOAD, _SYS_BPF = 24, 5, 321

_BTF = "sys/kernel/btf/vmlinux"
_TRAMPOLINE = "bpf_trampoline_link_prog"
_MEMLOCK_CHARGE = "bpf_map_charge_init"  # there as long as maps are charged to RLIMIT_MEMLOCK


@dataclass(frozen=True, slots=True)
class Function:
    """A kernel function that a hook wants. ``copies`` counts the symbols of exactly this name.

    ``traceable`` is whether ftrace can patch its entry, ``blacklisted`` whether kprobes are kept off it, ``patched``
    whether a live patch or a probe that changes the flow is on it.
    """

    name: str
    copies: int
    traceable: bool | None
    blacklisted: bool | None
    patched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """One look at the kernel and at this process; None where it could not be read.

    ``memlock`` is RLIMIT_MEMLOCK in bytes (None: unlimited), ``memlock_charged`` whether BPF maps count.
    ``load_errors`` has, by BPF program type, the errno of loading a program that does nothing, 0 for success;
    a tracing program without a target gets EINVAL where tracing programs are allowed. ``btf_foreign``: what lies at
    the BTF's place is not of sysfs, so of another kernel. ``seccomp``: this process is under a filter. ``root``: it is
    user 0, whatever it may do.
    """

    release: str
    machine: str
    cpus: int
    capabilities: frozenset[str]
    initial_user_namespace: bool
    initial_pid_namespace: bool
    lockdown: Lockdown | None
    btf: bool
    kprobes: bool
    trampolines: bool
    jit: bool | None
    ftrace_enabled: bool | None
    preemptible: bool
    tracefs: Path | None
    tracefs_writable: bool
    functions: tuple[Function, ...]
    handlers: tuple[str, ...]
    addresses_hidden: bool
    kptr_restrict: int | None
    perf_event_paranoid: int | None
    unprivileged_bpf_disabled: int | None
    memlock: int | None
    memlock_charged: bool
    load_errors: dict[int, int]
    bcc: Bcc
    btf_foreign: bool = False
    seccomp: bool = False
    root: bool = False
    unread: tuple[str, ...] = ()

    def can(self, capability: str) -> bool:
        """Whether the process has ``capability``; CAP_SYS_ADMIN includes the finer ones."""
        return bool(self.capabilities & {capability, "CAP_SYS_ADMIN"})


class _Reader:
    """Reads small files under ``root``, and remembers which ones exist but may not be read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.unread: list[str] = []

    def text(self, path: str | Path) -> str | None:
        """Return the file's text; None if it is not there or may not be read."""
        full = self.root / str(path).lstrip("/")
        try:
            return full.read_text(errors="surrogateescape")
        except PermissionError:
            self.unread.append(f"/{str(path).lstrip('/')}")
        except OSError:
            pass
        return None

    def number(self, path: str) -> int | None:
        """Return the file's number, None as above or if it holds none."""
        text = (self.text(path) or "").strip()
        return int(text) if re.fullmatch(r"-?\d+", text) else None

    def exists(self, path: str | Path) -> bool:
        """Whether the file is there, as far as one can see."""
        try:
            return (self.root / str(path).lstrip("/")).exists()
        except OSError:
            return False

    def writable(self, path: str | Path) -> bool:
        """Whether this process may write the file."""
        return os.access(self.root / str(path).lstrip("/"), os.W_OK)

    def link(self, path: str) -> str:
        """Return the target of a symbolic link, "" if there is none."""
        try:
            return str((self.root / path).readlink())
        except OSError:
            return ""


def try_load(program_type: int) -> int:
    """Load a BPF program of a type that does nothing, and drop it: 0, or the errno of the refusal."""
    libc = ctypes.CDLL(None, use_errno=True)
    # r0 = 0; exit
    code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0))
    licence = ctypes.create_string_buffer(b"GPL")
    attach_type = _TRACE_FENTRY if program_type == TRACING_PROGRAM else 0
    # type, instructions, their address, licence, no log, version, flags, no name, no interface, attach type
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "<IIQQIIQII16sII",
            *(program_type, 2, ctypes.addressof(code), ctypes.addressof(licence)),
            *(0, 0, 0, 0, 0, b"", 0, attach_type),
        )
    )
    fd = libc.syscall(_SYS_BPF, _PROG_LOAD, attributes, ctypes.sizeof(attributes) - 1)
    if fd < 0:
        return ctypes.get_errno()
    os.close(fd)
    return 0


def read(root: Path = Path("/"), *, trial: Callable[[int], int] = try_load) -> Features:
    """Look at everything below ``root`` (/proc, /sys, /etc, /usr) once; ``trial`` loads a BPF program."""
    reader = _Reader(root)
    symbols = Symbols((*FUNCTIONS, _TRAMPOLINE, _MEMLOCK_CHARGE), proc=root / "proc")
    mountinfo, status = reader.text("proc/self/mountinfo") or "", reader.text("proc/self/status") or ""
    debugfs = parse_mounts(mountinfo, "debugfs")
    tracefs = _tracefs(mountinfo, debugfs)
    available = reader.text(tracefs / "available_filter_functions") if tracefs else None
    blacklist = reader.text(debugfs[0] / "kprobes/blacklist") if debugfs else None
    kernel = "proc/sys/kernel"
    jit = reader.number("proc/sys/net/core/bpf_jit_enable")
    ftrace = reader.number(f"{kernel}/ftrace_enabled")
    kprobes = reader.exists("sys/bus/event_source/devices/kprobe/type")
    if tracefs and not kprobes:
        kprobes = reader.exists(tracefs / "kprobe_events")
    traceable = parse_traceable(available, FUNCTIONS) if available else frozenset()
    blacklisted = parse_blacklist(blacklist) if blacklist else frozenset()
    patched = parse_patched((reader.text(tracefs / "enabled_functions") if tracefs else None) or "", FUNCTIONS)
    return Features(
        release=(reader.text(f"{kernel}/osrelease") or platform.release()).strip(),
        machine=platform.machine(),
        cpus=parse_cpus(reader.text("sys/devices/system/cpu/possible") or ""),
        capabilities=parse_capabilities(status),
        initial_user_namespace=reader.link("proc/self/ns/user") in (_INIT_USER, ""),
        initial_pid_namespace=reader.link("proc/self/ns/pid") in (_INIT_PID, ""),
        lockdown=parse_lockdown(reader.text("sys/kernel/security/lockdown") or ""),
        btf=reader.exists(_BTF),
        btf_foreign=is_foreign(mountinfo, Path("/", _BTF)),
        seccomp=parse_seccomp(status),
        kprobes=kprobes,
        trampolines=bool(symbols.find(_TRAMPOLINE)),
        jit=None if jit is None else jit > 0,
        ftrace_enabled=None if ftrace is None else ftrace > 0,
        preemptible=preemptible(root / MODE.relative_to("/"), reader.text(f"{kernel}/version") or ""),
        root=os.geteuid() == 0,
        tracefs=tracefs,
        tracefs_writable=tracefs is not None and reader.writable(tracefs / "kprobe_events"),
        functions=tuple(
            Function(
                name,
                sum(symbol.is_function for symbol in symbols.find(name)),
                name in traceable if available else None,
                name in blacklisted if blacklist else None,
                name in patched,
            )
            for name in FUNCTIONS
        ),
        handlers=tuple(sorted(symbols.handlers())),
        addresses_hidden=symbols.hidden,
        kptr_restrict=reader.number(f"{kernel}/kptr_restrict"),
        perf_event_paranoid=reader.number(f"{kernel}/perf_event_paranoid"),
        unprivileged_bpf_disabled=reader.number(f"{kernel}/unprivileged_bpf_disabled"),
        memlock=parse_memlock(reader.text("proc/self/limits") or ""),
        memlock_charged=bool(symbols.find(_MEMLOCK_CHARGE)),
        load_errors={kind: trial(kind) for kind in (KPROBE_PROGRAM, TRACING_PROGRAM)},
        bcc=read_bcc(reader.text("etc/os-release") or "", root),
        unread=tuple(reader.unread),
    )


def _tracefs(mountinfo: str, debugfs: list[Path]) -> Path | None:
    """Where tracefs is; under debugfs it is mounted by the first look at it."""
    mounted = parse_mounts(mountinfo, "tracefs")
    if mounted:
        return min(mounted, key=lambda point: point != Path("/sys/kernel/tracing"))
    return debugfs[0] / "tracing" if debugfs else None
