"""The texts in which a kernel tells of itself: /proc/PID/status, mountinfo, ftrace's lists. No I/O."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Final

from tracer.model.capabilities import Capability
from tracer.model.mounts import parse

#: The capabilities that matter.
CAPABILITIES: Final = {
    f"CAP_{capability.name}": capability
    for capability in (
        Capability.SYS_PTRACE, Capability.SYS_ADMIN, Capability.SYS_RESOURCE, Capability.SYSLOG, Capability.PERFMON,
        Capability.BPF,
    )
}  # fmt: skip


class Lockdown(StrEnum):
    """The mode of the lockdown security module."""

    NONE = "none"
    INTEGRITY = "integrity"
    CONFIDENTIALITY = "confidentiality"


def parse_distribution(os_release: str) -> str:
    """``debian 13``, "" where an /etc/os-release does not tell."""
    values = dict(re.findall(r"^(ID|VERSION_ID)=[\"']?([\w.-]*)[\"']?$", os_release, re.MULTILINE))
    return f"{values.get('ID', '')} {values.get('VERSION_ID', '')}".strip()


def parse_capabilities(status: str) -> frozenset[str]:
    """Return the effective capabilities of ``CAPABILITIES`` in a /proc/PID/status."""
    found = re.search(r"^CapEff:\s*([0-9a-fA-F]+)$", status, re.MULTILINE)
    mask = int(found[1], 16) if found else 0
    return frozenset(name for name, bit in CAPABILITIES.items() if mask >> bit & 1)


def parse_lockdown(text: str) -> Lockdown | None:
    """Return the mode in brackets, as in ``none [integrity] confidentiality``."""
    found = re.search(r"\[(\w+)\]", text)
    return Lockdown(found[1]) if found and found[1] in set(Lockdown) else None


def parse_cpus(text: str) -> int:
    """How many CPUs a list such as ``0-3,8`` names; at least 1."""
    ranges = re.findall(r"(\d+)(?:-(\d+))?", text)
    return max(1, sum(int(last or first) - int(first) + 1 for first, last in ranges))


def parse_memlock(limits: str) -> int | None:
    """Return the soft limit in bytes on locked memory in a /proc/PID/limits; None if unlimited or not given."""
    found = re.search(r"^Max locked memory\s+(\d+)\s", limits, re.MULTILINE)
    return int(found[1]) if found else None


def parse_mounts(mountinfo: str, fstype: str) -> list[Path]:
    """Where file systems of a type are mounted, from a /proc/PID/mountinfo."""
    return [point for point, kind in _mounts(mountinfo) if kind == fstype]


def _mounts(mountinfo: str) -> Iterator[tuple[Path, str]]:
    """Yield mount points and types, in the order of mounting."""
    mounts, _ = parse(mountinfo.encode("utf-8", "surrogateescape"))
    yield from ((Path(mount.mountpoint), mount.fstype) for mount in mounts)


def is_foreign(mountinfo: str, path: Path) -> bool:
    """Whether a file of sysfs is hidden by one of another filesystem, from a /proc/PID/mountinfo."""
    deepest, nearest = 0, "sysfs"
    for point, kind in _mounts(mountinfo):
        # Of two mounts on one point, the later one hides the other.
        if path.is_relative_to(point) and len(point.parts) >= deepest:
            deepest, nearest = len(point.parts), kind
    return nearest != "sysfs"


def parse_seccomp(status: str) -> bool:
    """Whether a /proc/PID/status tells of a seccomp filter."""
    return bool(re.search(r"^Seccomp:\s*2$", status, re.MULTILINE))


def parse_patched(enabled: str, names: Iterable[str]) -> frozenset[str]:
    """Which of the names an enabled_functions lists with the flag I (FTRACE_FL_IPMODIFY, kernel/trace/ftrace.c)."""
    return frozenset(n for n in names if re.search(rf"^{re.escape(n)} \(\d+\)[ RD]*I", enabled, re.MULTILINE))


def parse_traceable(available: str, names: Iterable[str]) -> frozenset[str]:
    """Which of the names an available_filter_functions lists (``name`` or ``name [module]`` a line)."""
    return frozenset(n for n in names if re.search(rf"^{re.escape(n)}(?: \[|$)", available, re.MULTILINE))


def parse_blacklist(blacklist: str) -> frozenset[str]:
    """Return the functions in kprobes/blacklist (``0x...-0x...<tab>name`` a line)."""
    return frozenset(line.rpartition("\t")[2].strip() for line in blacklist.split("\n") if "\t" in line)
