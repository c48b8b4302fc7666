"""A compiled BPF object, and making its maps and programs in the kernel."""

from __future__ import annotations

import ctypes as ct
import errno
import mmap
import os
import resource
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from tracer.kernel.libbpf import checked, libbpf
from tracer.probes.abi import CONFIG_MARK, GLOBAL_MARK, GLOBALS, KFUNC_MARK

# include/uapi/linux/bpf.h
KPROBE: Final = 2
RAW_TRACEPOINT: Final = 17
TRACING: Final = 26
FENTRY: Final = 24
FEXIT: Final = 25
ITER: Final = 28
KPROBE_MULTI: Final = 42
_LDDW: Final = 0x18
#: As much as the verifier may say (bpf_verifier_log_attr_valid, kernel/bpf/log.c, takes more).
_LOG_BYTES: Final = 1 << 24

_PSEUDO_MAP_VALUE: Final = 2
_CALL: Final = 0x85
_PSEUDO_KFUNC_CALL: Final = 2

_SCALARS: Final[Mapping[str, Any]] = {
    "char": ct.c_char,
    "unsigned char": ct.c_uint8,
    "unsigned short": ct.c_uint16,
    "int": ct.c_int32,
    "unsigned int": ct.c_uint32,
    "long long": ct.c_int64,
    "unsigned long": ct.c_uint64,
    "unsigned long long": ct.c_uint64,
}


def c_type(description: Any) -> Any:
    """Return the ctypes type for a description of BCC: a scalar's name, or [name, [[field, type, [size]?]...], _]."""
    if isinstance(description, str):
        return _SCALARS[description]
    name, members, *_ = description
    fields = []
    for member in members:
        kind = c_type(member[1])
        fields.append((member[0], kind * member[2][0] if len(member) > 2 else kind))
    return type(str(name), (ct.Structure,), {"_fields_": fields})


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What BCC says of a map; ``key`` and ``value`` are its type descriptions."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key: Any
    value: Any


@dataclass(frozen=True, slots=True)
class BpfObject:
    """Bytecode that refers to maps by name: ``references`` holds (instruction, map) for each program."""

    maps: Mapping[str, MapSpec]
    programs: Mapping[str, bytes]
    references: Mapping[str, tuple[tuple[int, str], ...]]

    def configured(self, settings: Mapping[int, int], rows: Mapping[str, int], entries: Mapping[str, int]) -> BpfObject:
        """Return the object with its settings (bpf/config.h) written in, and some maps of another size.

        A setting that differs between a program's hooks is left to ``load``. ``rows``: how often a map's value is
        repeated, for the maps that are one value. ``entries``: of other maps.
        """
        maps = {
            name: replace(
                spec,
                value_size=spec.value_size * rows.get(name, 1),
                max_entries=entries.get(name, spec.max_entries),
            )
            for name, spec in self.maps.items()
        }
        return replace(self, maps=maps, programs={name: _set(code, settings) for name, code in self.programs.items()})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BpfObject:
        """From the output of ``compile.py``."""
        return cls(
            {name: MapSpec(**spec) for name, spec in data["maps"].items()},
            {name: bytes.fromhex(code) for name, code in data["programs"].items()},
            {name: tuple((at, to) for at, to in refs) for name, refs in data["references"].items()},
        )


def _marked(code: bytes, mark: int) -> Iterator[tuple[int, int]]:
    """Offset and number of each 64-bit immediate whose upper half is ``mark``."""
    half = mark.to_bytes(4, "little")
    for at in range(0, len(code) - 8, 8):
        if code[at] == _LDDW and code[at + 1] >> 4 == 0 and code[at + 12 : at + 16] == half:
            yield at, int.from_bytes(code[at + 4 : at + 8], "little")


def _set(code: bytes, settings: Mapping[int, int]) -> bytes:
    patched = bytearray(code)
    for at, number in _marked(code, CONFIG_MARK):
        if number not in settings:
            continue
        value = settings[number].to_bytes(8, "little")
        patched[at + 4 : at + 8], patched[at + 12 : at + 16] = value[:4], value[4:]
    return bytes(patched)


def kernel_calls(code: bytes) -> bytes:
    """Return the code with helpers numbered beyond the mark turned into calls of kernel functions (bpf/kfunc.h)."""
    patched = bytearray(code)
    for at in range(0, len(code), 8):
        number = int.from_bytes(code[at + 4 : at + 8], "little")
        if code[at] == _CALL and not code[at + 1] and number & KFUNC_MARK:
            patched[at + 1] = _PSEUDO_KFUNC_CALL << 4
            patched[at + 4 : at + 8] = (number ^ KFUNC_MARK).to_bytes(4, "little")
    return bytes(patched)


class _MapOpts(ct.Structure):
    """struct bpf_map_create_opts (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("btf", ct.c_uint32 * 5),
        ("map_flags", ct.c_uint32),
        ("map_extra", ct.c_uint64),
        ("numa_node", ct.c_uint32),
        ("map_ifindex", ct.c_uint32),
    )


class _ProgOpts(ct.Structure):
    """struct bpf_prog_load_opts (libbpf's bpf.h)."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("attempts", ct.c_int),
        ("expected_attach_type", ct.c_uint32),
        ("prog_btf_fd", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_ifindex", ct.c_uint32),
        ("kern_version", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
        ("attach_prog_fd", ct.c_uint32),
        ("attach_btf_obj_fd", ct.c_uint32),
        ("fd_array", ct.c_void_p),
        ("func_info", ct.c_void_p),
        ("func_info_cnt", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_void_p),
        ("line_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_char_p),
    )


def create_maps(specs: Mapping[str, MapSpec]) -> dict[str, int]:
    """Return a descriptor for each map. Raises OSError; nothing is left open then."""
    made: dict[str, int] = {}
    try:
        for name, spec in specs.items():
            opts = _MapOpts(sz=ct.sizeof(_MapOpts), map_flags=spec.flags)
            arguments = (spec.type, name.encode()[:15], spec.key_size, spec.value_size, spec.max_entries)
            made[name] = checked(_charged(libbpf().bpf_map_create, *arguments, ct.byref(opts)))
    except OSError:
        for descriptor in made.values():
            os.close(descriptor)
        raise
    return made


def _charged(call: Callable[..., int], *arguments: Any) -> int:
    """Return the result of a libbpf function, with RLIMIT_MEMLOCK raised if that is in the way.

    Kernels before 5.11 charge maps and programs to it, and say EPERM. Only while they are made: it is our caller's, and
    programs that we run inherit it. libbpf may raise it by itself there (bump_rlimit_memlock), at its first call.
    """
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        result = call(*arguments)
        if result == -errno.EPERM:
            with suppress(ValueError, OSError):  # it may not be raised
                resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                result = call(*arguments)
        return result
    finally:
        if resource.getrlimit(resource.RLIMIT_MEMLOCK) != before:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def load(
    bpf: BpfObject,
    name: str,
    maps: Mapping[str, int],
    kind: int,
    attach: int = 0,
    btf_id: int = 0,
    module: int = 0,
    own: Mapping[int, int] = MappingProxyType({}),
) -> int:
    """Load one program and return its descriptor. ``kind`` is KPROBE or TRACING, the latter with FENTRY or FEXIT.

    ``module`` is the descriptor of the module's types that ``btf_id`` is of, 0 for the kernel's own; ``own`` are the
    settings of this hook.

    Raises OSError as the kernel refuses, with the end of the verifier's log in ``filename`` if it wrote one.
    """
    plain = _set(bpf.programs[name], own)
    code = bytearray(plain)
    for instruction, target in bpf.references[name]:
        code[8 * instruction + 4 : 8 * instruction + 8] = maps[target].to_bytes(4, "little")
    for at, number in _marked(plain, GLOBAL_MARK):
        code[at + 1] |= _PSEUDO_MAP_VALUE << 4
        code[at + 4 : at + 8] = maps[GLOBALS[number]].to_bytes(4, "little")
        code[at + 12 : at + 16] = bytes(4)  # offset within the value
    opts = _ProgOpts(
        sz=ct.sizeof(_ProgOpts), expected_attach_type=attach, attach_btf_id=btf_id, attach_btf_obj_fd=module
    )
    arguments = (kind, name.encode()[:15], b"GPL", kernel_calls(bytes(code)), len(code) // 8)
    result = _charged(libbpf().bpf_prog_load, *arguments, ct.byref(opts))
    if result >= 0:
        return int(result)
    lines: list[str] = []
    if result != -errno.EPERM:  # the verifier was asked
        # Again for its words. If they don't fit, that is another error: the first one counts.
        log = mmap.mmap(-1, _LOG_BYTES)  # of which it touches what it needs
        words = (ct.c_char * _LOG_BYTES).from_buffer(log)
        opts.log_level, opts.log_size, opts.log_buf = 1, _LOG_BYTES, ct.cast(words, ct.c_char_p)
        again = _charged(libbpf().bpf_prog_load, *arguments, ct.byref(opts))
        if again >= 0:
            return int(again)
        lines = words.value.decode(errors="replace").strip().splitlines()
    raise OSError(-result, os.strerror(-result), " | ".join(lines[-6:]) or None)


class _ProgInfo(ct.Structure):
    """The head of struct bpf_prog_info (include/uapi/linux/bpf.h), to the last field that we read."""

    _fields_ = (("head", ct.c_uint8 * 192), ("run_time_ns", ct.c_uint64), ("run_cnt", ct.c_uint64),
                ("recursion_misses", ct.c_uint64))  # fmt: skip


def insert(descriptor: int, key: bytes, value: bytes) -> None:
    """Put an entry into a map. Raises OSError."""
    checked(libbpf().bpf_map_update_elem(descriptor, key, value, 0))


def _info(descriptor: int) -> _ProgInfo:
    """Return what the kernel says of a program; zeros if nothing."""
    info = _ProgInfo()
    size = ct.c_uint32(ct.sizeof(info))
    if libbpf().bpf_obj_get_info_by_fd(descriptor, ct.byref(info), ct.byref(size)) < 0:
        return _ProgInfo()
    return info


def recursion_misses(descriptor: int) -> int:
    """How often the kernel skipped a program because it was already running on that CPU (0 before 5.12)."""
    return int(_info(descriptor).recursion_misses)


def runs(programs: Iterable[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """Of loaded programs (name, descriptor), by name: how often they ran, and for how many ns.

    While kernel.bpf_stats_enabled was 1; only those that the kernel kept count of.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, descriptor in programs:
        info = _info(descriptor)
        if info.run_cnt:
            number, ns = found.get(name, (0, 0))
            found[name] = number + int(info.run_cnt), ns + int(info.run_time_ns)
    return found
