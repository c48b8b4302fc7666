"""What stands in the way of compiling and loading the programs: types, BCC, memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.errors import Exit
from tracer.kernel.btf import FOREIGN
from tracer.kernel.features import Features
from tracer.kernel.libraries import OLDEST
from tracer.kernel.obstacles import Obstacle, Subject
from tracer.model.hooks import Backend

#: Without CAP_SYS_RESOURCE, on a kernel that charges BPF maps to RLIMIT_MEMLOCK, this many bytes are enough.
MEMLOCK_NEEDED: Final = 64 << 20
_ALL: Final = frozenset(Backend)
_NOTHING: Final = "Nothing can be traced."


def btf(features: Features) -> Iterator[Obstacle]:
    """Yield the obstacles to reading the kernel's types."""
    if not features.btf:
        yield Obstacle(
            "no-btf",
            Subject.BTF,
            "This kernel does not describe its types: /sys/kernel/btf/vmlinux is missing.",
            "Nothing can be traced: without it nobody knows where the kernel keeps a fault's file.",
            "Boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as the distributions' kernels are.",
            Exit.NO_BTF,
            _ALL,
        )


def foreign_btf(features: Features) -> Iterator[Obstacle]:
    """Yield the obstacle that the types are not this kernel's."""
    if features.btf and features.btf_foreign:
        yield Obstacle(
            "btf-foreign",
            Subject.BTF,
            FOREIGN[0],
            "Nothing can be traced: what is read by another kernel's layout is wrong.",
            FOREIGN[1],
            Exit.FOREIGN_BTF,
            _ALL,
        )


def bcc(features: Features) -> Iterator[Obstacle]:
    """Yield the obstacles to compiling."""
    found = features.bcc
    install = f"Install it: {found.install}." if found.install else "Install BCC and its Python module."
    if found.python is None and found.place is None:
        yield Obstacle(
            "no-bcc",
            Subject.BCC,
            "BCC's Python module is not installed.",
            "Nothing can be traced: BCC compiles the programs.",
            install,
            Exit.NO_BCC,
            _ALL,
        )
    elif found.python is None:
        yield Obstacle(
            "bcc-other-python",
            Subject.BCC,
            f"BCC is installed in {found.place}, for another Python than this one and /usr/bin/python3.",
            "Nothing can be traced: BCC compiles the programs.",
            install,
            Exit.OTHER_PYTHON,
            _ALL,
        )
    elif found.too_old:
        yield Obstacle(
            "bcc-too-old",
            Subject.BCC,
            f"BCC {found.version} is older than {OLDEST[0]}.{OLDEST[1]}, the oldest that mkwrite works with.",
            "Nothing can be traced: BCC compiles the programs.",
            "Use a newer release of the distribution (Debian 12, Ubuntu 24.04), or install BCC from its sources.",
            Exit.OLD_BCC,
            _ALL,
        )
    if found.missing_libraries:
        yield Obstacle(
            "no-library",
            Subject.BCC,
            f"The shared library {' and '.join(found.missing_libraries)} cannot be loaded.",
            _NOTHING,
            "Install BCC again" + (f": {found.install}." if found.install else ", with its libraries."),
            Exit.NO_BCC,
            _ALL,
        )


def memory(features: Features) -> Iterator[Obstacle]:
    """Room for maps."""
    if memlock_short(features):
        yield Obstacle(
            "memlock",
            Subject.MEMORY,
            f"BPF maps count as locked memory here, limited to {(features.memlock or 0) >> 10} KiB.",
            "Nothing can be traced: the maps do not fit.",
            "Raise the limit (ulimit -l unlimited, LimitMEMLOCK=infinity), or add CAP_SYS_RESOURCE.",
            Exit.NO_MEMORY,
            _ALL,
        )


def memlock_short(features: Features) -> bool:
    """Whether the maps do not fit: with CAP_SYS_RESOURCE the tracer raises the limit itself."""
    return (
        features.memlock_charged
        and features.memlock is not None
        and features.memlock < MEMLOCK_NEEDED
        and "CAP_SYS_RESOURCE" not in features.capabilities
    )
