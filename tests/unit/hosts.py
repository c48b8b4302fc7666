"""Hosts as features, for tests: a good one, and it with something changed."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

from tracer.kernel.features import (
    FUNCTIONS,
    KPROBE_PROGRAM,
    TRACING_PROGRAM,
    Features,
    Function,
)
from tracer.kernel.libraries import Bcc
from tracer.kernel.parsing import CAPABILITIES, Lockdown

BCC = Bcc("0.31.0", Path("/usr/bin/python3"), None, (), "apt-get install python3-bpfcc")

#: A Debian 13 host as root: nothing is in the way.
GOOD = Features(
    release="6.12.41+deb13-amd64",
    machine="x86_64",
    cpus=4,
    capabilities=frozenset(CAPABILITIES),
    initial_user_namespace=True,
    initial_pid_namespace=True,
    lockdown=Lockdown.NONE,
    btf=True,
    kprobes=True,
    trampolines=True,
    jit=True,
    ftrace_enabled=True,
    preemptible=False,
    tracefs=Path("/sys/kernel/tracing"),
    tracefs_writable=True,
    functions=tuple(Function(name, 1, True, False) for name in FUNCTIONS),
    handlers=("ext4_page_mkwrite", "filemap_page_mkwrite"),
    addresses_hidden=False,
    kptr_restrict=0,
    perf_event_paranoid=3,
    unprivileged_bpf_disabled=2,
    memlock=8 << 20,
    memlock_charged=False,
    load_errors={KPROBE_PROGRAM: 0, TRACING_PROGRAM: errno.EINVAL},
    bcc=BCC,
)
UNPRIVILEGED = replace(
    GOOD,
    capabilities=frozenset(),
    tracefs_writable=False,
    load_errors={KPROBE_PROGRAM: errno.EPERM, TRACING_PROGRAM: errno.EPERM},
    addresses_hidden=True,
)
#: The os-release of a distribution.
OS = 'PRETTY_NAME="X"\nNAME="X"\nID={}\n'


def without(*capabilities: str) -> Features:
    """GOOD without capabilities."""
    return replace(GOOD, capabilities=GOOD.capabilities - set(capabilities))


def function(name: str, **changes: object) -> Features:
    """GOOD with one function changed."""
    changed = tuple(replace(f, **changes) if f.name == name else f for f in GOOD.functions)  # type: ignore[arg-type]
    return replace(GOOD, functions=changed)
