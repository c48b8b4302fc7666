"""What stands in the way of tracing: each obstacle with what it costs and what to do about it.

Everything here follows from ``Features`` alone, so every message can be had on any machine.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from typing import Final

from tracer.errors import Exit
from tracer.kernel.features import KPROBE_PROGRAM, TRACING_PROGRAM, Features
from tracer.kernel.functions import functions, gain, names
from tracer.kernel.needs import bcc, btf, foreign_btf, memlock_short, memory
from tracer.kernel.obstacles import Obstacle, Subject
from tracer.kernel.parsing import Lockdown
from tracer.model.hooks import Backend

_BOTH: Final = frozenset(Backend)
_FENTRY: Final = frozenset({Backend.FENTRY})
_KPROBE: Final = frozenset({Backend.KPROBE})
_NOTHING: Final = "Nothing can be traced."


def obstacles(features: Features) -> list[Obstacle]:
    """Everything in the way, what ends all tracing first; empty where nothing is."""
    found = [obstacle for check in _CHECKS for obstacle in check(features)]
    return sorted(found, key=lambda obstacle: -len(obstacle.blocks))


def _kernel(features: Features) -> Iterator[Obstacle]:
    if features.machine != "x86_64":
        yield Obstacle(
            "architecture",
            Subject.KERNEL,
            f"This machine is {features.machine}; mkwrite knows x86_64 only.",
            _NOTHING,
            "Run mkwrite on an x86_64 machine.",
            Exit.NO_HOOKS,
            _BOTH,
        )


def _privileges(features: Features) -> Iterator[Obstacle]:
    missing = [name for name in ("CAP_BPF", "CAP_PERFMON") if not features.can(name)]
    if missing:
        yield Obstacle(
            "capabilities",
            Subject.PRIVILEGES,
            f"This process lacks {' and '.join(missing)}.",
            _NOTHING,
            f"Root lacks {'it' if len(missing) == 1 else 'them'} here: add {' and '.join(missing)} to the container or "
            "the service."
            if features.root
            else "Run mkwrite as root, e.g. with sudo.",
            Exit.NO_PERMISSION,
            _BOTH,
        )
    elif "CAP_SYS_PTRACE" not in features.capabilities:
        yield Obstacle(
            "no-ptrace",
            Subject.PRIVILEGES,
            "This process lacks CAP_SYS_PTRACE.",
            "Other users' mappings cannot be read: maps and risk leave them out, sigbus names no library.",
            gain(features, "CAP_SYS_PTRACE"),
            Exit.NO_PERMISSION,
        )
    if not missing and not features.initial_user_namespace:
        yield Obstacle(
            "user-namespace",
            Subject.PRIVILEGES,
            "This process is root in a user namespace only, as in a rootless container.",
            "Nothing can be traced: the kernel grants tracing to the host's root alone.",
            "Run mkwrite on the host, or in a container without a user namespace.",
            Exit.NO_PERMISSION,
            _BOTH,
        )


def _lockdown(features: Features) -> Iterator[Obstacle]:
    if features.lockdown is Lockdown.CONFIDENTIALITY:
        yield Obstacle(
            "lockdown-confidentiality",
            Subject.LOCKDOWN,
            "The kernel is locked down for confidentiality.",
            "Nothing can be traced: the kernel lets nobody read its memory.",
            "Boot with lockdown=integrity, or without lockdown=.",
            Exit.LOCKDOWN,
            _BOTH,
        )


def _bpf(features: Features) -> Iterator[Obstacle]:
    refusal = features.load_errors.get(KPROBE_PROGRAM, 0)
    refused = refusal in (errno.EPERM, errno.EACCES) and _privileged(features) and not memlock_short(features)
    if features.seccomp and (refused or refusal == errno.ENOSYS):
        yield Obstacle(
            "seccomp",
            Subject.BPF,
            "This process runs under a seccomp filter, and bpf(2) is refused.",
            _NOTHING,
            "Allow bpf(2) and perf_event_open(2) in the profile (Docker: --security-opt seccomp=PROFILE, or --cap-add "
            "BPF where its own allows it; systemd: SystemCallFilter=).",
            Exit.SECCOMP,
            _BOTH,
        )
    elif refusal == errno.ENOSYS:
        yield Obstacle(
            "no-bpf",
            Subject.BPF,
            "This kernel has no bpf system call, or a seccomp profile hides it.",
            _NOTHING,
            "Boot a kernel built with CONFIG_BPF_SYSCALL=y, or allow bpf(2) in the seccomp profile.",
            Exit.NO_HOOKS,
            _BOTH,
        )
    elif refused:
        yield Obstacle(
            "bpf-refused",
            Subject.BPF,
            "BPF programs are refused to this process although it has the capabilities.",
            _NOTHING,
            "Allow bpf(2) for mkwrite in the security module's policy, or the seccomp profile, that denies it.",
            Exit.NO_PERMISSION,
            _BOTH,
        )


def _fentry(features: Features) -> Iterator[Obstacle]:
    cost = "The fentry backend cannot be used, which costs least a call and misses no return."
    refusal = features.load_errors.get(TRACING_PROGRAM, errno.EINVAL)
    if not features.trampolines:
        yield Obstacle(
            "no-trampoline",
            Subject.FENTRY,
            "This kernel has no BPF trampolines.",
            cost,
            "Use the kprobe backend, or a kernel built with CONFIG_FUNCTION_TRACER=y and CONFIG_BPF_JIT=y.",
            Exit.NO_HOOKS,
            _FENTRY,
        )
    elif features.jit is False:
        yield Obstacle(
            "no-jit",
            Subject.FENTRY,
            "BPF's just-in-time compiler is switched off.",
            cost,
            "Switch it on: sysctl net.core.bpf_jit_enable=1.",
            Exit.NO_HOOKS,
            _FENTRY,
        )
    elif refusal in (errno.EPERM, errno.EACCES) and features.load_errors.get(KPROBE_PROGRAM) == 0:
        yield Obstacle(
            "fentry-refused",
            Subject.FENTRY,
            "The kernel refuses BPF tracing programs to this process, and allows others.",
            cost,
            "Look for a security module's policy that denies them, and allow them for mkwrite.",
            Exit.NO_PERMISSION,
            _FENTRY,
        )
    if features.ftrace_enabled is False:
        yield Obstacle(
            "ftrace-off",
            Subject.FENTRY,
            "Function tracing is switched off (kernel.ftrace_enabled = 0).",
            "Hooks may attach and never fire, on either backend.",
            "Switch it on: sysctl kernel.ftrace_enabled=1.",
            Exit.NO_HOOKS,
        )


def _kprobes(features: Features) -> Iterator[Obstacle]:
    if not features.kprobes:
        yield Obstacle(
            "no-kprobes",
            Subject.KPROBES,
            "This kernel has no kprobes.",
            "The kprobe backend cannot be used.",
            "Use the fentry backend, or boot a kernel built with CONFIG_KPROBE_EVENTS=y.",
            Exit.NO_HOOKS,
            _KPROBE,
        )
    elif (
        _privileged(features)
        and (features.perf_event_paranoid or 0) > 2
        and "CAP_SYS_ADMIN" not in features.capabilities
    ):
        yield Obstacle(
            "perf-paranoid",
            Subject.KPROBES,
            f"kernel.perf_event_paranoid is {features.perf_event_paranoid}, and this process lacks CAP_SYS_ADMIN.",
            "The kprobe backend cannot be used: CAP_PERFMON is not enough then.",
            f"Lower it: sysctl kernel.perf_event_paranoid=2. {gain(features, 'CAP_SYS_ADMIN')}",
            Exit.NO_PERMISSION,
            _KPROBE,
        )
    elif features.tracefs is None:
        yield Obstacle(
            "no-tracefs",
            Subject.TRACEFS,
            "tracefs is not mounted.",
            "The kprobe backend cannot be used: it would lose the returns of calls that sleep.",
            "Mount it: mount -t tracefs nodev /sys/kernel/tracing.",
            Exit.NO_TRACEFS,
            _KPROBE,
        )
    elif not features.tracefs_writable and _privileged(features):
        yield Obstacle(
            "tracefs-denied",
            Subject.TRACEFS,
            f"This process may not write to {features.tracefs}.",
            "The kprobe backend cannot be used: it would lose the returns of calls that sleep.",
            f"{gain(features, 'CAP_DAC_OVERRIDE')} In a container, mount tracefs writable.",
            Exit.NO_TRACEFS,
            _KPROBE,
        )


def _pids(features: Features) -> Iterator[Obstacle]:
    if not features.initial_pid_namespace:
        yield Obstacle(
            "pid-namespace",
            Subject.PIDS,
            "This process is in a pid namespace of its own, as in a container.",
            "Pids are shown as the host sees them, not as this namespace does.",
            "Share the host's pid namespace (--pid=host, hostPID: true).",
            Exit.FAILED,
        )


_CHECKS: Final[tuple[Callable[[Features], Iterator[Obstacle]], ...]] = (
    *(_kernel, _privileges, _lockdown, _bpf, btf, foreign_btf, bcc, memory),
    *(_fentry, _kprobes, functions, names, _pids),
)


def _privileged(features: Features) -> bool:
    return features.initial_user_namespace and features.can("CAP_BPF") and features.can("CAP_PERFMON")
