"""From what was asked for to an open tracer: which functions to hook, on which backend, with which filters built in."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracer.errors import Exit, MkwriteError
from tracer.host.cgroups import Cgroups
from tracer.host.mounts import Mounts
from tracer.kernel.btf import Btf, header
from tracer.kernel.checks import obstacles
from tracer.kernel.features import parse_cpus, read
from tracer.kernel.obstacles import ruling
from tracer.kernel.preemption import preemptible
from tracer.kernel.refusals import explain
from tracer.kernel.symbols import Symbols
from tracer.model import Backend, By, Filters, Options
from tracer.probes.build import build, text
from tracer.probes.program import BpfObject
from tracer.probes.tracer import Place, Tracer

CORE: Final = "do_page_mkwrite"
WP: Final = "do_wp_page"
DIRTY: Final = "fault_dirty_shared_page"

#: RACED_AFTER_NS of bpf/page_mkwrite.c.
RACED_AFTER_NS: Final = 100_000_000
#: Slots for calls in flight, as a power of two; what finds its slot taken costs a hash map's look-up more.
_SLOT_BITS: Final = 13
_VALUE_LIMIT: Final = 4 << 20
_POSSIBLE: Final = Path("/sys/devices/system/cpu/possible")


@dataclass(frozen=True, slots=True)
class Opened:
    """An open tracer, how it attached, and what it could not do. ``handlers``: hooked one by one, not in the core."""

    tracer: Tracer
    backend: Backend
    handlers: frozenset[str]
    notes: tuple[str, ...]


def open_tracer(options: Options, symbols: Symbols, mounts: Mounts) -> Opened:
    """Try the plans in order until one attaches. Raises MkwriteError when none does."""
    notes: list[str] = []
    handlers = _handlers(options, symbols, notes)
    plans = list(_plans(options.backend, bool(handlers), preemptible()))
    wanted = list(_wanted(options.filters, symbols, mounts, by_address=not handlers))
    with Btf() as btf:
        tells_raced = btf.function(DIRTY) is not None
        if not tells_raced:
            notes.append(f"{DIRTY} is not there to be hooked: calls that raced are counted as writable.")
        layout = header(btf)
        cpus = parse_cpus(_POSSIBLE.read_text())
        arity = btf.arity(CORE) if btf.function(CORE) else 0
        settings = _settings(options, wanted, tells_raced, arity, bool(handlers))

        def compiled(backend: Backend) -> BpfObject:
            result = build(text(layout, backend))
            front_bits = _front_bits(cpus, result.maps["front"].value_size)
            return result.configured(
                [*settings, cpus, front_bits, _SLOT_BITS],
                {"slots": 1 << _SLOT_BITS, "front": cpus << front_bits, "wp_counts": cpus},
                {"others": options.max_series},
            )

        for index, plan in enumerate(plans):
            objects = {backend: compiled(backend) for backend in dict.fromkeys((plan.calls, plan.wp))}
            places = list(_places(plan, handlers, tells_raced))
            try:
                tracer = Tracer(objects, [w.key for w in wanted], places, btf.function)
            except OSError as error:
                if plan is plans[-1]:
                    # Where no backend works, what is in the way of each says more than the last refusal.
                    overall = ruling(obstacles(read())) if len(plans) > 1 else None
                    raise overall or explain(error, f"attach the {plan.calls} hooks", plan.calls) from error
                notes.append(f"{plan} was refused ({error.strerror}): using {plans[index + 1]}.")
                continue
            if plan.calls is Backend.FENTRY and preemptible():
                notes.append(
                    "This kernel preempts BPF programs: on busy CPUs the fentry backend misses calls, "
                    "and counts them as missed_probe."
                )
            return Opened(tracer, plan.calls, frozenset(handlers), tuple(notes))
    raise AssertionError("a list of plans is never empty")


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which backend hooks the calls, and which do_wp_page."""

    calls: Backend
    wp: Backend

    def __str__(self) -> str:
        return "+".join(dict.fromkeys((self.calls, self.wp)))


def _plans(asked: Backend | None, handlers: bool, preempts: bool) -> Iterator[_Plan]:
    """What to try, best first.

    A preempted fentry program makes the kernel skip those of other tasks on its CPU (__bpf_prog_enter_recur,
    kernel/bpf/trampoline.c); kprobes run with preemption off, and miss nothing. do_wp_page runs at every
    copy-on-write of the host: its hook has to be cheap before it has to be complete.
    """
    if asked:
        yield _Plan(Backend.KPROBE if handlers else asked, asked)
        return
    fentry, exact = _Plan(Backend.FENTRY, Backend.FENTRY), _Plan(Backend.KPROBE, Backend.FENTRY)
    if not handlers and not preempts:
        yield fentry
    yield exact
    yield _Plan(Backend.KPROBE, Backend.KPROBE)
    if not handlers and preempts:
        yield fentry


def _front_bits(cpus: int, cell_size: int) -> int:
    """Front cells a CPU, as a power of two: 64, or fewer on hosts with very many CPUs.

    Kernels to 6.1 limit a map's value to KMALLOC_MAX_SIZE (array_map_alloc_check, kernel/bpf/arraymap.c).
    """
    return next((bits for bits in range(6, 0, -1) if (cpus << bits) * cell_size <= _VALUE_LIMIT), 0)


def handler_places(handlers: Iterable[str]) -> Iterator[Place]:
    """Hooks on handlers themselves, which only kprobes can share a program for."""
    for handler in handlers:
        yield Place("page_mkwrite_return", handler, Backend.KPROBE, at_return=True)
        yield Place("page_mkwrite_entry", handler, Backend.KPROBE)


def _places(plan: _Plan, handlers: Iterable[str], dirty: bool) -> Iterator[Place]:
    if dirty:
        yield Place("page_mkwrite_dirty", DIRTY, plan.calls)
    if handlers:
        yield from handler_places(handlers)
    else:
        yield Place("page_mkwrite_return", CORE, plan.calls, at_return=True)
        yield Place("page_mkwrite_entry", CORE, plan.calls)
    yield Place("wp_page_return", WP, plan.wp, at_return=True)
    if plan.wp is Backend.KPROBE:
        yield Place("wp_page_entry", WP, plan.wp)


def _handlers(options: Options, symbols: Symbols, notes: list[str]) -> tuple[str, ...]:
    """The handlers to hook one by one: those asked for, or all where the core's function cannot be hooked."""
    if options.filters.handlers:
        if options.backend is Backend.FENTRY:
            return ()  # filtered by address instead
        return options.filters.handlers
    if symbols.find(CORE):
        return ()
    known = tuple(sorted(symbols.handlers()))
    if not known:
        raise MkwriteError(
            f"This kernel has neither {CORE} nor a page_mkwrite handler that can be hooked.",
            "Run mkwrite doctor: it says what this kernel allows.",
            Exit.NO_HOOKS,
        )
    notes.append(f"{CORE} cannot be hooked: hooking {len(known)} handlers instead; initiators are unknown.")
    return known


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A value to filter by: ``kind`` is enum want_kind (bpf/filter.h)."""

    kind: int
    low: int
    high: int = 0

    @property
    def key(self) -> bytes:
        """Struct want."""
        return struct.pack("<3Q", self.kind, self.low, self.high)


_PID, _COMM, _CGROUP, _FS, _DEV, _HANDLER = range(6)
_ON_TASK: Final = (_PID, _COMM, _CGROUP)
_NEVER_NS: Final = (1 << 64) - 1


def _settings(options: Options, wanted: list[_Wanted], tells_raced: bool, arity: int, handler_hooks: bool) -> list[int]:
    """The settings of bpf/config.h, in its order, up to WANT_CALL."""
    kinds = {w.kind for w in wanted}
    return [
        tells_raced,
        arity,
        handler_hooks,
        _NEVER_NS if options.slower_ns is None else options.slower_ns,
        0 if options.by is None else list(By).index(options.by) + 1,
        options.by in (By.PROCESS, By.FILE),
        sum(1 << kind for kind in kinds if kind in _ON_TASK),
        sum(1 << kind for kind in kinds if kind not in _ON_TASK),
    ]


def _wanted(filters: Filters, symbols: Symbols, mounts: Mounts, by_address: bool) -> Iterator[_Wanted]:
    for pid in filters.pids:
        yield _Wanted(_PID, pid)
    for comm in filters.comms:
        yield _Wanted(_COMM, *_as_numbers(comm))
    cgroups = Cgroups(mounts)
    for path in filters.cgroups:
        yield _Wanted(_CGROUP, cgroups.id_of(path))
    for name in filters.fs:
        # mountinfo shows a subtype behind a dot, which is not part of the type: "fuse.sshfs".
        yield _Wanted(_FS, *_as_numbers(name.partition(".")[0]))
    for point in filters.mounts:
        if mount := mounts.at(point):
            yield _Wanted(_DEV, mount.dev)
    if by_address:
        known = symbols.handlers()
        for name in filters.handlers:
            yield _Wanted(_HANDLER, known[name].address)


def _as_numbers(text: str) -> tuple[int, int]:
    """The 16 bytes of a comm or type name, as the programs compare them."""
    padded = text.encode("utf-8", "surrogateescape")[:15].ljust(16, b"\0")
    return int.from_bytes(padded[:8], "little"), int.from_bytes(padded[8:], "little")
