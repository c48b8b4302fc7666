"""The hooks that learn why a write is refused: bpf/failure.c, bpf/errno.c and bpf/signal.c, an object of their own."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tracer.errors import MkwriteError
from tracer.host.mounts import Mounts
from tracer.kernel.btf import FIELDS, Btf, header
from tracer.kernel.module_btf import ModuleBtf
from tracer.kernel.preemption import preemptible
from tracer.kernel.refusals import last_refusal
from tracer.kernel.symbols import Symbols
from tracer.model import Backend, Filters, Hook, Options
from tracer.probes import inner, program
from tracer.probes.attach import ReturnProbes, attach_fentry, attach_kprobe, attach_raw_tracepoint
from tracer.probes.build import build, text
from tracer.probes.maps import Events, entries
from tracer.probes.plan import CORE
from tracer.probes.program import BpfObject, c_type
from tracer.probes.settings import settings, wanted

FILES: Final = (
    "config.h", "read.h", "filter.h", "path.h", "failure.h", "failure.c", "errno.c", "signal.c",
)  # fmt: skip
_FAULT: Final = "__do_fault"
_HUGETLB: Final = "hugetlb_fault"
_TRUNCATE: Final = "do_truncate"

#: What these programs read beyond the others.
_MORE_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "super_block": ("s_flags",),
    "inode": ("i_size", "i_blocks", "i_flags"),
    "dentry": ("d_inode",),
    "vm_operations_struct": ("fault",),
    "vm_area_struct": ("vm_start", "vm_pgoff"),
    "cred": ("uid",),
    "sighand_struct": ("action",),
    "kernel_siginfo": ("si_code", "_sifields"),
    "mm_struct": ("arg_start", "arg_end"),
    "task_struct": ("mm", "tgid", "pid", "comm", "stack", "sighand", "blocked", "real_cred"),
}
_FIELDS: Final = {
    name: (*FIELDS.get(name, ()), *_MORE_FIELDS.get(name, ())) for name in dict.fromkeys([*FIELDS, *_MORE_FIELDS])
}

# settings of bpf/failure.h
_INNER, _ARITY, _DENTRY_ARG, _TASK_REGS, _SETTINGS = 16, 17, 18, 19, 20
_LOSSES: Final = ("failures_full", "calls_full")


@dataclass(slots=True)
class _Attached:
    hook: Hook
    descriptor: int


class Burst(NamedTuple):
    """struct burst_key: failures that are told of once and then counted."""

    tgid: int
    dev: int
    inode: int
    source: int
    error: int


class FailureTracer:
    """Attached hooks, their events and counts. ``close`` leaves nothing behind."""

    def __init__(self, filters: Filters, backend: Backend | None, symbols: Symbols, mounts: Mounts) -> None:
        """Raises MkwriteError when no backend attaches the hooks that nothing can be known without."""
        self._symbols = symbols
        self._attached: list[_Attached] = []
        self._missing: list[Hook] = []
        self._maps: dict[str, int] = {}
        self._programs: list[int] = []
        self._returns: ReturnProbes | None = None
        self._ring: Events | None = None
        self._hooked: set[str] = set()
        selection = list(wanted(filters, symbols, mounts, by_address=True))
        keys = [one.key for one in selection]
        # Of bpf/config.h, these programs know the filters only.
        common = settings(Options(filters=filters), selection, cpus=0, cells=1, raced=False, handlers=False)
        self._settings = [*common, *[0] * (_SETTINGS - len(common))]
        tried = [backend] if backend else _order()
        with Btf() as btf:
            for choice in tried:
                try:
                    self._open(btf, choice, keys)
                except (OSError, MkwriteError) as error:
                    self.close()
                    if choice is tried[-1]:
                        raise last_refusal(error, choice, len(tried) > 1) from error
                except BaseException:
                    self.close()
                    raise
                else:
                    return

    def _open(self, btf: Btf, backend: Backend, keys: list[bytes]) -> None:
        self.backend = backend
        self._settings[_TASK_REGS] = btf.function("bpf_task_pt_regs") is not None
        self._bpf: BpfObject = build(source(btf, backend))
        self._maps = program.create_maps(self._bpf.maps)
        for key in keys:
            program.insert(self._maps["wanted"], key, b"\1")
        self._ring = Events(self._bpf.maps, self._maps)
        # The signal's hook before those whose refusals it belongs to, and what a call leaves behind before the call.
        self._raw_tracepoint("signal_generated", "signal_generate")
        for place in _places(backend):
            try:
                self._place(btf, place)
            except (OSError, MkwriteError) as error:
                if place.needed:
                    raise
                self._miss(place.name, place.function, error)
        self._follow(btf)

    def follow_modules(self) -> None:
        """Hook the inner functions of modules loaded since."""
        if self._symbols.refresh():
            with Btf() as btf:
                self._follow(btf)

    def _follow(self, btf: Btf) -> None:
        for number, found in inner.available(self._symbols):
            if found.function in self._hooked:
                continue
            self._hooked.add(found.function)
            try:
                self._inner(btf, number, found)
            except (OSError, MkwriteError) as error:
                self._miss(f"{found.function}:return", found.function, error)

    def _inner(self, btf: Btf, number: int, found: inner.Inner) -> None:
        # Without a module's types, or with more than six parameters (to 6.1), a return probe does, at a higher cost.
        with suppress(OSError, MkwriteError):
            if self.backend is Backend.FENTRY:
                with ModuleBtf(found.module, btf) if found.module else nullcontext(btf) as types:
                    own = {_INNER: number, _ARITY: types.arity(found.function)}
                    self._fentry(types, "inner_return", found.function, True, own)
                return
        self._return_probe("inner_probe", found.function, {_INNER: number})

    def _place(self, btf: Btf, place: _Place) -> None:
        if not self._symbols.find(place.function):
            raise OSError(errno.ENOENT, "not in this kernel")
        own = {}
        if place.function == _TRUNCATE:
            # do_truncate(dentry, length, ...) up to 5.11; later the mount's id mapping comes first.
            own[_DENTRY_ARG] = btf.arity(_TRUNCATE) - 4
        if self.backend is Backend.FENTRY:
            own[_ARITY] = btf.arity(place.function)
            self._fentry(btf, place.program, place.function, place.at_return, own)
        elif place.at_return:
            self._return_probe(place.program, place.function, own)
        else:
            descriptor = attach_kprobe(self._load(place.program, own, program.KPROBE), place.function)
            self._keep(place.name, place.function, Backend.KPROBE, descriptor)

    def _fentry(self, btf: Btf, name: str, function: str, at_return: bool, own: Mapping[int, int]) -> None:
        kind = program.FEXIT if at_return else program.FENTRY
        module = btf.descriptor if isinstance(btf, ModuleBtf) else 0
        loaded = self._load(name, own, program.TRACING, kind, btf.function(function) or 0, module)
        self._keep(f"{function}:{'return' if at_return else 'entry'}", function, Backend.FENTRY, attach_fentry(loaded))

    def _return_probe(self, name: str, function: str, own: Mapping[int, int]) -> None:
        if self._returns is None:
            self._returns = ReturnProbes()
        descriptor = self._returns.attach(self._load(name, own, program.KPROBE), function)
        self._keep(f"{function}:return", function, Backend.KPROBE, descriptor)

    def _raw_tracepoint(self, name: str, tracepoint: str) -> None:
        descriptor = attach_raw_tracepoint(self._load(name, {}, program.RAW_TRACEPOINT), tracepoint)
        self._keep(tracepoint, tracepoint, self.backend, descriptor)

    def _miss(self, name: str, function: str, error: OSError | MkwriteError) -> None:
        """What this hook would have told is inferred, or not known."""
        reason = error.strerror if isinstance(error, OSError) else error.problem
        self._missing.append(Hook(name, function, self.backend, attached=False, detail=reason or ""))

    def _keep(self, name: str, function: str, backend: Backend, descriptor: int) -> None:
        self._attached.append(_Attached(Hook(name, function, backend, attached=True), descriptor))

    def _load(self, name: str, own: Mapping[int, int], kind: int, *where: int) -> int:
        values = [own.get(number, value) for number, value in enumerate(self._settings)]
        loaded = program.load(self._bpf.configured(values, {}, {}), name, self._maps, kind, *where)
        self._programs.append(loaded)
        return loaded

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """What is attached, and what could not be."""
        return (*(attached.hook for attached in self._attached), *self._missing)

    @property
    def events(self) -> Events:
        """Events: struct failure of bpf/failure.h."""
        assert self._ring is not None
        return self._ring

    def seen(self) -> dict[Burst, int]:
        """How many failures of each kind there were, those included that were not told of one by one."""
        spec = self._bpf.maps["bursts"]
        key, value = c_type(spec.key), c_type(spec.value)
        result = {}
        for raw_key, raw_value in entries(spec, self._maps["bursts"]):
            k = key.from_buffer_copy(raw_key)
            result[Burst(k.tgid, k.dev, k.inode, k.source, k.error)] = value.from_buffer_copy(raw_value).seen
        return result

    def lost(self) -> dict[str, int]:
        """Losses by kind."""
        found = dict.fromkeys(_LOSSES, 0)
        for key, value in entries(self._bpf.maps["failures_lost"], self._maps["failures_lost"]):
            number = struct.unpack("<I", key)[0]
            if number < len(_LOSSES):
                found[_LOSSES[number]] = struct.unpack("<Q", value)[0]
        found["missed_probe"] = sum(map(program.recursion_misses, self._programs))
        found["missed_probe"] += sum(self._returns.missed().values()) if self._returns else 0
        return found

    def detach(self) -> None:
        """Remove the hooks; events that came before stay readable."""
        while self._attached:
            os.close(self._attached.pop().descriptor)
        if self._returns:
            self._returns.close()
            self._returns = None

    def close(self) -> None:
        """Detach everything and free programs and maps."""
        self.detach()
        if self._ring:
            self._ring.close()
            self._ring = None
        for descriptor in (*self._programs, *self._maps.values()):
            with suppress(OSError):
                os.close(descriptor)
        self._programs.clear()
        self._maps.clear()
        self._missing.clear()
        self._hooked.clear()


def _order() -> list[Backend]:
    """Backends to try, best first: fentry programs miss calls where the kernel preempts them (see probes.plan)."""
    return [Backend.KPROBE, Backend.FENTRY] if preemptible() else [Backend.FENTRY, Backend.KPROBE]


@dataclass(frozen=True, slots=True)
class _Place:
    """A program on a function of the kernel proper. ``needed``: without it there is nothing to see."""

    program: str
    function: str
    at_return: bool
    needed: bool = False

    @property
    def name(self) -> str:
        return f"{self.function}:{'return' if self.at_return else 'entry'}"


def _places(backend: Backend) -> Iterator[_Place]:
    yield _Place("truncating", _TRUNCATE, at_return=False)
    yield _Place("fault_return", _FAULT, at_return=True)
    yield _Place("hugetlb_return", _HUGETLB, at_return=True)
    if backend is Backend.KPROBE:
        yield _Place("fault_entry", _FAULT, at_return=False)
        yield _Place("hugetlb_entry", _HUGETLB, at_return=False)
    yield _Place("mkwrite_return", CORE, at_return=True, needed=True)
    yield _Place("mkwrite_entry", CORE, at_return=False, needed=True)


def source(btf: Btf, backend: Backend) -> str:
    """The C text of the object."""
    if btf.struct("backing_file") is None:
        return text(header(btf, _FIELDS), backend, FILES)
    # 6.8: before, the file that an overlay maps has the overlay's path (fs/backing-file.c, include/linux/fs.h).
    fields = {**_FIELDS, "file": (*_FIELDS["file"], "f_mode"), "backing_file": ("user_path",)}
    return text(f"#define HAS_BACKING_FILE\n{header(btf, fields)}", backend, FILES)


def symbols() -> Symbols:
    """The kernel's symbols, every function that may be hooked looked for in the first pass."""
    return Symbols([CORE, _FAULT, _HUGETLB, _TRUNCATE, *inner.names()])


__all__: Any = ("FILES", "Burst", "FailureTracer", "source", "symbols")
