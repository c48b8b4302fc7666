"""From what was asked for to an open tracer: which functions to hook, on which backend, with which filters built in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Final

from tracer.errors import Exit, MkwriteError
from tracer.kernel.btf import Btf
from tracer.kernel.parsing import parse_cpus
from tracer.kernel.preemption import preemptible
from tracer.kernel.refusals import last_refusal, refusal_text, why_not
from tracer.kernel.symbols import Symbols
from tracer.model.hooks import Backend
from tracer.model.losses import FENTRY_PREEMPTED
from tracer.model.options import Options
from tracer.probes import dax, failures, writeback
from tracer.probes.abi import SLOT_BITS
from tracer.probes.build import build
from tracer.probes.program import BpfObject
from tracer.probes.selection import Selection, Wanted
from tracer.probes.settings import settings
from tracer.probes.source import source
from tracer.probes.tracepoints import POSSIBLE_CPUS, TracepointCounts, note, open_tracepoints, unfiltered
from tracer.probes.tracer import HookPoint, Tracer
from tracer.probes.waits import WaitHooks

CORE: Final = "do_page_mkwrite"
WP: Final = "do_wp_page"
DIRTY: Final = "fault_dirty_shared_page"
END: Final = "generic_shutdown_super"

_LACKING: Final = (Exit.FAILED, Exit.NO_BCC, Exit.COMPILER_MEMORY, Exit.NO_MEMORY, Exit.COMPILE)
_VALUE_LIMIT: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """An open tracer, how it attached, and what it could not do.

    ``handlers``: hooked one by one, not in the core. ``inner``: what follows modules for their errnos, with failures;
    ``waits``: what tells waits apart, if that was asked for. ``sees_ends``: it sees when a filesystem ends.
    """

    tracer: Tracer
    backend: Backend
    handlers: frozenset[str]
    notes: tuple[str, ...]
    inner: failures.InnerHooks | None = None
    waits: WaitHooks | None = None
    counts: TracepointCounts | None = None
    sees_ends: bool = False


def open_tracer(options: Options, symbols: Symbols, selection: Selection) -> Opened:
    """Attach to functions or, where none can be hooked, to tracepoints. Raises MkwriteError when nothing attaches."""
    if options.backend is Backend.TRACEPOINT:
        return _open_tracepoints(options, symbols, selection, "")
    try:
        return _open_hooks(options, symbols, selection)
    except MkwriteError as error:
        if options.backend:
            raise
        why = why_not({Backend.FENTRY: error, Backend.KPROBE: error})
        try:
            return _open_tracepoints(options, symbols, selection, why)
        except MkwriteError as other:
            # What any program lacks (a compiler, memory, descriptors) says more than why the others were not allowed.
            raise (other if other.code in _LACKING else error) from None


def _open_tracepoints(options: Options, symbols: Symbols, selection: Selection, why: str) -> Opened:
    try:
        tracer, counts = open_tracepoints(options, symbols, selection)
    except OSError as error:
        raise last_refusal(error, Backend.TRACEPOINT, False) from error
    lost = writeback.notes(options.filters) if options.failures else ()
    notes = (note(why), *unfiltered(options.filters, options.by), *lost)
    return Opened(tracer, Backend.TRACEPOINT, frozenset(), notes, counts=counts)


def _open_hooks(options: Options, symbols: Symbols, selection: Selection) -> Opened:
    """Try the plans in order until one attaches."""
    notes: list[str] = []
    handlers = _handlers(options, symbols, notes)
    preempts = preemptible()
    plans = list(_plans(options.backend, bool(handlers), preempts))
    wanted = selection.wanted(by_address=not handlers)
    with Btf() as btf:
        tells_raced = btf.function(DIRTY) is not None
        if not tells_raced:
            notes.append(f"{DIRTY} is not there to be hooked: calls that raced are counted as writable.")
        cpus = parse_cpus(POSSIBLE_CPUS.read_text())

        def compiled(backend: Backend) -> BpfObject:
            result = build(source(btf, backend, options.failures, options.waits))
            cells = _front_cells(cpus, result.maps["front"].value_size)
            common = settings(options, wanted, cpus=cpus, cells=cells, raced=tells_raced, handlers=bool(handlers))
            return result.configured(
                {**common, **failures.settings(options, btf)},
                {"slots": 1 << SLOT_BITS, "front": cpus * cells, "wp_counts": cpus},
                {"others": options.max_series},
            )

        for index, plan in enumerate(plans):
            objects = {backend: compiled(backend) for backend in dict.fromkeys((plan.calls, plan.wp))}
            places = list(_places(plan, options.filters.handlers if handlers else (), not handlers, tells_raced))
            try:
                opened = _attached(options, plan, objects, places, wanted, symbols, btf, handlers)
            except (OSError, MkwriteError) as error:
                if plan is plans[-1]:
                    raise last_refusal(error, plan.calls, len(plans) > 1) from error
                notes.append(f"{plan} was refused ({refusal_text(error)}): using {plans[index + 1]}.")
                continue
            if plan.calls is Backend.FENTRY and preempts:
                notes.append(FENTRY_PREEMPTED)
            return replace(opened, notes=(*notes, *opened.notes))
    raise AssertionError("a list of plans is never empty")


def _attached(
    options: Options,
    plan: _Plan,
    objects: Mapping[Backend, BpfObject],
    places: Iterable[HookPoint],
    wanted: Iterable[Wanted],
    symbols: Symbols,
    btf: Btf,
    handlers: tuple[str, ...],
) -> Opened:
    """Attach what one plan wants. A call is followed from its entry on: that is hooked when all else is there."""
    inner: failures.InnerHooks | None = None
    waits: WaitHooks | None = None
    notes: list[str] = []
    places = list(places)
    entries = [place for place in places if place.program == "page_mkwrite_entry"]
    with ExitStack() as undo:
        tracer = Tracer(objects, [one.key for one in wanted], [one for one in places if one not in entries], btf)
        undo.callback(tracer.close)
        if options.failures:
            inner = failures.InnerHooks(tracer, symbols, plan.wp, options)
            inner.follow_modules(btf)
        if not options.filters.handlers and dax.known(btf):
            dax.hook(tracer, plan.calls, btf)
        if options.waits:
            waits = WaitHooks(objects[plan.calls], tracer.descriptors, plan.calls, symbols)
            undo.callback(waits.close)
        for place in entries:
            tracer.attach(place, btf)
        if handlers and not options.filters.handlers:
            notes += hook_handlers(tracer, handlers)
        if options.failures:
            # Who refused can be told only where calls are followed: these are the last to come, and the first to go.
            for place in failures.places(options.filters, plan.wp, btf):
                tracer.attach_if_possible(place, btf)
            for place in writeback.places(options.filters, plan.wp, symbols):
                tracer.attach_if_possible(place, btf)
            notes += writeback.notes(options.filters)
        tracer.maps.attached()
        undo.pop_all()
    sees_ends = any(hook.attached and hook.function == END for hook in tracer.hooks)
    if not sees_ends:
        notes.append(f"{END} cannot be hooked: a device number that is used again is not told apart from what had it.")
    return Opened(tracer, plan.calls, frozenset(handlers), tuple(notes), inner, waits, sees_ends=sees_ends)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which backend hooks the calls, and which do_wp_page and what else runs at many faults that are no call."""

    calls: Backend
    wp: Backend

    def __str__(self) -> str:
        return "+".join(dict.fromkeys((self.calls, self.wp)))


def _plans(asked: Backend | None, handlers: bool, preempts: bool) -> Iterator[_Plan]:
    """Yield what to try, best first.

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


def _front_cells(cpus: int, cell_size: int) -> int:
    """Front cells a CPU, a power of two: 64, or fewer on hosts with very many CPUs.

    Kernels to 6.1 limit a map's value to KMALLOC_MAX_SIZE (array_map_alloc_check, kernel/bpf/arraymap.c).
    """
    return next((1 << bits for bits in range(6, 0, -1) if (cpus << bits) * cell_size <= _VALUE_LIMIT), 1)


def handler_places(handlers: Iterable[str]) -> Iterator[HookPoint]:
    """Hooks on handlers themselves, which only kprobes can share a program for."""
    for handler in handlers:
        yield HookPoint("page_mkwrite_return", handler, Backend.KPROBE, at_return=True)
        yield HookPoint("page_mkwrite_entry", handler, Backend.KPROBE)


def hook_handlers(tracer: Tracer, handlers: Iterable[str]) -> list[str]:
    """Attach to those of all handlers that can be; a note for each that cannot (perf's is marked notrace in 5.10)."""
    notes = []
    for name in handlers:
        try:
            for place in handler_places((name,)):
                tracer.attach(place)
        except OSError as error:
            notes.append(f"{name} could not be hooked: {error.strerror}.")
    return notes


def _places(plan: _Plan, handlers: Iterable[str], core: bool, dirty: bool) -> Iterator[HookPoint]:
    # First of all, and last to go: what is counted must be of the filesystem that has the device number then.
    yield HookPoint("filesystem_ended", END, plan.calls, optional=True)
    if dirty:
        yield HookPoint("page_mkwrite_dirty", DIRTY, plan.calls)
    yield from handler_places(handlers)
    if core:
        yield HookPoint("page_mkwrite_return", CORE, plan.calls, at_return=True)
        yield HookPoint("page_mkwrite_entry", CORE, plan.calls)
    yield HookPoint("wp_page_return", WP, plan.wp, at_return=True)
    if plan.wp is Backend.KPROBE:
        yield HookPoint("wp_page_entry", WP, plan.wp)


def _handlers(options: Options, symbols: Symbols, notes: list[str]) -> tuple[str, ...]:
    """Return the handlers to hook one by one: those asked for, or all where the core's function cannot be hooked."""
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
