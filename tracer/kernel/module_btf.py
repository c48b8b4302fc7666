"""The types of a kernel module: /sys/kernel/btf/NAME, which continues the kernel's own. There are none before 5.11."""

from __future__ import annotations

import ctypes as ct
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.kernel.btf import Btf
from tracer.kernel.libbpf import checked, libbpf

_BTF: Final = Path("/sys/kernel/btf")
_NAME_BYTES: Final = 64  # MODULE_NAME_LEN less, include/linux/module.h


class _BtfInfo(ct.Structure):
    """struct bpf_btf_info (include/uapi/linux/bpf.h)."""

    _fields_ = (
        ("btf", ct.c_uint64),
        ("btf_size", ct.c_uint32),
        ("id", ct.c_uint32),
        ("name", ct.c_uint64),
        ("name_len", ct.c_uint32),
        ("kernel_btf", ct.c_uint32),
    )


class ModuleBtf(Btf):
    """As ``Btf``; ``descriptor`` is what a program that attaches to the module's functions is loaded with."""

    def __init__(self, module: str, base: Btf) -> None:
        """Open them; raises MkwriteError if the module's types cannot be read, OSError if the kernel gives none."""
        self._lib = libbpf()
        self._path = _BTF / module
        self.descriptor = -1
        self._numbers = {}
        self._btf = self._lib.btf__parse_split(bytes(self._path), base._btf)
        if not self._btf:
            raise self._unreadable()
        try:
            self.descriptor = _descriptor(module)
        except OSError:
            super().close()
            raise

    def close(self) -> None:
        """Free the types, and the kernel's descriptor."""
        super().close()
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _descriptor(module: str) -> int:
    """Return the kernel's object for a module's types, found by its name."""
    number = ct.c_uint32(0)
    while True:
        checked(libbpf().bpf_btf_get_next_id(number.value, ct.byref(number)))
        descriptor = -1
        with suppress(FileNotFoundError):  # gone since
            descriptor = checked(libbpf().bpf_btf_get_fd_by_id(number.value))
        if descriptor < 0:
            continue
        if _name(descriptor) == module:
            return descriptor
        os.close(descriptor)


def _name(descriptor: int) -> str:
    name = ct.create_string_buffer(_NAME_BYTES)
    info = _BtfInfo(name=ct.addressof(name), name_len=_NAME_BYTES)
    size = ct.c_uint32(ct.sizeof(info))
    checked(libbpf().bpf_obj_get_info_by_fd(descriptor, ct.byref(info), ct.byref(size)))
    return name.value.decode(errors="replace")
