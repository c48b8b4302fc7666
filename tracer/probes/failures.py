"""The hooks that learn why a write is refused, besides those of the calls: bpf/fault.c, bpf/errno.c, bpf/signal.c."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Final

from tracer.errors import MkwriteError
from tracer.kernel.btf import Btf
from tracer.kernel.module_btf import ModuleBtf
from tracer.kernel.refusals import denied
from tracer.kernel.symbols import Symbols
from tracer.model.hooks import Backend
from tracer.model.options import Filters, Options
from tracer.probes import inner, writeback
from tracer.probes.abi import Setting
from tracer.probes.tracer import HookPoint, Tracer

_SIGNAL: Final = "signal_generate"
_FIXUP: Final = "fixup_exception"
#: By function, which argument has the flags.
_PINNING: Final = {"__get_user_pages": 3, "fixup_user_fault": 2}
_CHANGE: Final = "notify_change"
#: Of the parameters that a function may have to be hooked by fentry on every kernel (btf_ctx_access, to 6.1).
_MOST: Final = 6
#: Programs of what shuts an xfs down: the second, since 5.17, goes about the first when the log fails. Up to then the
#: first may be inlined, and the third has all.
_SHUTDOWN: Final = {
    "xfs_do_force_shutdown": "shutting_down",
    "xlog_force_shutdown": "log_shutting_down",
    "xfs_log_force_umount": "shutting_down",
}
#: Hooked before them: it begins another life of what they name.
_MOUNT: Final = {"xfs_mountfs": "mounting"}


def functions() -> tuple[str, ...]:
    """Every function that may be hooked."""
    return (_FIXUP, *_PINNING, _CHANGE, *_MOUNT, *_SHUTDOWN, *inner.names())


def settings(options: Options, btf: Btf) -> dict[int, int]:
    """Those settings of failures that are the same for every hook."""
    filters = options.filters
    of_files = filters.fs or filters.mounts or filters.handlers
    return {
        Setting.TASK_REGS: btf.function("bpf_task_pt_regs") is not None,
        Setting.SIGNALS: not of_files,
        Setting.UNMAPPED_TOO: options.all_writes,
    }


def places(filters: Filters, backend: Backend, btf: Btf) -> Iterator[HookPoint]:
    """Where the kernel proper is hooked, in the order of attaching: a signal comes after what it belongs to.

    All are optional: what one would have told is inferred then, or not known.
    """
    # In this order on the tracepoint: a refusal before the signal that it belongs to.
    for program in ("signal_refused", "signal_generated")[bool(filters.handlers) :]:
        yield HookPoint(program, _SIGNAL, backend, tracepoint=True, optional=True)
    if (parameters := _arity(btf, _CHANGE)) is not None:
        # notify_change(dentry, change, ...) up to 5.11; later the mount's id mapping comes first.
        own = ((Setting.DENTRY_ARG, parameters - 3), (Setting.ARITY, parameters))
        # The entry comes first: it tells without the return, too, but for attempts that failed.
        yield HookPoint("truncating", _CHANGE, backend, optional=True, own=own)
        yield HookPoint("truncated", _CHANGE, backend, at_return=True, optional=True, own=own)
    if filters.handlers:
        return
    yield HookPoint("access_refused", _FIXUP, backend, optional=True)
    for function, flags in _PINNING.items():
        arity = _arity(btf, function) or 0
        both = ((Setting.ARITY, arity), (Setting.FLAGS_ARG, flags))
        if backend is Backend.FENTRY and arity <= _MOST:
            yield HookPoint("pin_return", function, Backend.FENTRY, at_return=True, optional=True, own=both)
        else:
            yield HookPoint("pin_probe_return", function, Backend.KPROBE, at_return=True, optional=True, own=both)
            yield HookPoint("pin_probe_entry", function, Backend.KPROBE, optional=True, own=both)


def _arity(btf: Btf, function: str) -> int | None:
    return btf.arity(function) if btf.function(function) is not None else None


class InnerHooks:
    """The hooks on the functions that return an errno, attached as the modules that have them come."""

    def __init__(self, tracer: Tracer, symbols: Symbols, backend: Backend, options: Options) -> None:
        """With ``every_errno``, those functions, too, that run at calls that succeed."""
        self._tracer = tracer
        self._symbols = symbols
        self._backend = backend
        self._hooked: set[str] = set() if options.every_errno else set(inner.COSTLY)
        others = {
            function: (HookPoint(program, function, Backend.KPROBE, optional=True),)
            for function, program in (_MOUNT | _SHUTDOWN).items()
        }
        self._others = {**others, **writeback.closing(options.filters)}
        self._filters = options.filters
        #: Return probes are.
        self._denied = False

    def follow_modules(self, btf: Btf) -> None:
        """Attach to what is there now and was not before."""
        for number, found in inner.available(self._symbols):
            if found.function not in self._hooked:
                self._hooked.add(found.function)
                self._hook(btf, number, found)
        for function, places in self._others.items():
            if function not in self._hooked and self._symbols.find(function):
                self._hooked.add(function)
                for place in places:
                    self._attach(place)
        for name, place in writeback.ranges(self._filters, self._symbols, btf):
            if name not in self._hooked:
                self._hooked.add(name)
                self._attach(place)

    def _hook(self, btf: Btf, number: int, found: inner.Inner) -> None:
        own = ((Setting.INNER, number),)
        probe = HookPoint("inner_probe", found.function, Backend.KPROBE, at_return=True, optional=True, own=own)
        # Without a module's types, or with more than six parameters (to 6.1), a return probe does, at more cost.
        if self._backend is Backend.KPROBE or not self._fentry(btf, number, found):
            self._attach(probe)

    def _attach(self, place: HookPoint) -> None:
        if self._denied and self._attach_with_less(place):
            return
        try:
            self._tracer.attach(place)
        except (OSError, MkwriteError) as error:
            first = denied(error) and not self._denied
            self._denied |= denied(error)
            if not first or not self._attach_with_less(place):
                self._tracer.miss(place, error)

    def _attach_with_less(self, place: HookPoint) -> bool:
        """With less rights, if that is possible. These functions hardly sleep; if too many do, an errno is missed."""
        found = self._symbols.find(place.function)
        if len(found) != 1 or not found[0].address:
            return False
        try:
            self._tracer.attach(replace(place, address=found[0].address))
        except (OSError, MkwriteError):
            return False
        return True

    def _fentry(self, btf: Btf, number: int, found: inner.Inner) -> bool:
        try:
            with ModuleBtf(found.module, btf) if found.module else nullcontext(btf) as types:
                own = ((Setting.INNER, number), (Setting.ARITY, types.arity(found.function)))
                place = HookPoint("inner_return", found.function, Backend.FENTRY, True, optional=True, own=own)
                self._tracer.attach(place, types)
        except (OSError, MkwriteError):
            return False
        return True
