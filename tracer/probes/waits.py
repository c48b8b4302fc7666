"""The hooks that tell what calls wait for: bpf/wait.c on the functions of ``wait_functions``.

They belong to a tracer's object and share its maps.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, Final

from tracer.errors import MkwriteError
from tracer.host.processes import host_pids
from tracer.kernel import refusals
from tracer.kernel.btf import Btf
from tracer.kernel.module_btf import ModuleBtf
from tracer.kernel.symbols import Symbol, Symbols
from tracer.model.hooks import Backend, Hook
from tracer.model.waits import Wait
from tracer.probes import program, wait_functions
from tracer.probes.abi import WAITS, Setting
from tracer.probes.attach import ReturnProbes, attach_fentry, attach_kprobe
from tracer.probes.forks import let_go_in_forks
from tracer.probes.in_flight import ITERATOR, InFlightReader
from tracer.probes.program import BpfObject

#: Calls that may sleep in one function at once; a kprobe's pool.
_SLEEPERS: Final = 1024


class WaitHooks:
    """Attached hooks. ``detach`` after the tracer's own; ``close`` leaves nothing behind."""

    def __init__(self, bpf: BpfObject, maps: Mapping[str, int], backend: Backend, symbols: Symbols) -> None:
        """``bpf`` as configured; ``maps`` by descriptor, the caller's. What cannot be hooked is told."""
        self._bpf, self._maps = bpf, maps
        self._backend, self._symbols = backend, symbols
        #: Each with its program and what holds it there, as descriptors.
        self._attached: list[tuple[Hook, int, int]] = []
        self._missing: list[Hook] = []
        #: By program, reason and function (fentry programs are loaded for one function).
        self._programs: dict[tuple[str, int, str], int] = {}
        self._returns: ReturnProbes | None = None
        self._hooked: set[str] = set()
        self._dirty_code = 0
        self._in_flight: InFlightReader | None = None
        let_go_in_forks(self)
        try:
            self._open_in_flight()
            self.follow_modules()
        except BaseException:
            self.close()
            raise

    def _open_in_flight(self) -> None:
        try:
            with Btf() as btf:
                self._in_flight = InFlightReader(self._bpf, self._maps, btf, self._symbols)
        except OSError as error:  # where no tracing programs are allowed, kprobes still may be
            self._miss(ITERATOR, Backend.FENTRY, error)

    def follow_modules(self) -> None:
        """Attach to what modules loaded since have."""
        with Btf() as btf, ExitStack() as stack:
            modules: dict[str, Btf | None] = {"": btf}

            def types(module: str) -> Btf | None:
                if module not in modules:
                    modules[module] = None
                    with suppress(OSError, MkwriteError):  # a kernel without types for its modules
                        modules[module] = stack.enter_context(ModuleBtf(module, btf))
                return modules[module]

            throttle = self._symbols.find(wait_functions.THROTTLE)
            dirty = self._symbols.find(wait_functions.DIRTY)
            if throttle and dirty and dirty[0].address:
                self._dirty_code = dirty[0].address
                self._hook("throttle", Wait.THROTTLE, throttle[0], btf)
            for function, what in wait_functions.FREEZES.items():
                for symbol in self._symbols.find(function):
                    self._hook(what, Wait.FREEZE, symbol, btf)
            for reason, symbol in wait_functions.available(self._symbols):
                self._hook("wait", reason, symbol, types(symbol.module))

    def _hook(self, what: str, reason: Wait, symbol: Symbol, btf: Btf | None) -> None:
        if symbol.name in self._hooked:
            return
        self._hooked.add(symbol.name)
        before = len(self._attached)
        try:
            # The return first: an entry whose return is not seen would never end.
            self._attach(f"{what}_return", WAITS.index(reason), symbol.name, btf, at_return=True)
            self._attach(f"{what}_entry", WAITS.index(reason), symbol.name, btf, at_return=False)
        except (OSError, MkwriteError) as error:
            for *_, descriptor in self._attached[before:]:
                os.close(descriptor)
            del self._attached[before:]
            self._miss(symbol.name, self._backend, error)

    def _miss(self, name: str, backend: Backend, error: OSError | MkwriteError) -> None:
        detail, denied = refusals.refusal_text(error), refusals.denied(error)
        self._missing.append(Hook(name, name, backend, attached=False, detail=detail, denied=denied))

    def _attach(self, name: str, reason: int, function: str, btf: Btf | None, *, at_return: bool) -> None:
        fentry = self._backend is Backend.FENTRY and btf is not None and btf.function(function) is not None
        key = (name, reason, function if fentry else "")
        if key not in self._programs:
            self._programs[key] = self._load(name, reason, function, btf if fentry else None, at_return)
        loaded = self._programs[key]
        if fentry:
            descriptor = attach_fentry(loaded)
        elif at_return:
            self._returns = self._returns or ReturnProbes(_SLEEPERS)
            descriptor = self._returns.attach(loaded, function)
        else:
            descriptor = attach_kprobe(loaded, function)
        backend = Backend.FENTRY if fentry else Backend.KPROBE
        where = f"{function}:{'return' if at_return else 'entry'}"
        self._attached.append((Hook(where, function, backend, attached=True), loaded, descriptor))

    def _load(self, name: str, reason: int, function: str, btf: Btf | None, at_return: bool) -> int:
        own: dict[int, int] = {Setting.REASON: reason, Setting.DIRTY_CODE: self._dirty_code}
        if btf is None:
            return program.load(self._bpf, name, self._maps, program.KPROBE, own=own)
        kind = program.FEXIT if at_return else program.FENTRY
        module = btf.descriptor if isinstance(btf, ModuleBtf) else 0
        number = btf.function(function) or 0
        return program.load(self._bpf, name, self._maps, program.TRACING, kind, number, module, own)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """What is attached and how often the kernel skipped each since, and what could not be attached."""
        returns = self._returns.missed() if self._returns else {}
        attached = (
            replace(
                hook,
                missed=program.recursion_misses(loaded)
                + (returns.get(hook.function, 0) if hook.name.endswith(":return") else 0),
            )
            for hook, loaded, _ in self._attached
        )
        return (*attached, *self._missing)

    @property
    def programs(self) -> Iterator[tuple[str, int]]:
        """What is loaded: name, descriptor."""
        yield from ((name, descriptor) for (name, *_), descriptor in self._programs.items())
        if self._in_flight:
            yield self._in_flight.program

    def missed(self) -> int:
        """How often the kernel skipped a program, or a return."""
        total = sum(map(program.recursion_misses, self._programs.values()))
        return total + (sum(self._returns.missed().values()) if self._returns else 0)

    def in_flight(self) -> Iterator[tuple[Any, bytes, Wait | None]]:
        """Return the calls that have not returned, as ``InFlightReader.read`` has them."""
        return self._in_flight.read() if self._in_flight else iter(())

    @property
    def sees_all(self) -> bool:
        """Whether ``in_flight`` has every task's; an iterator goes over those of its own pid namespace."""
        return self._in_flight is not None and host_pids()

    def detach(self) -> None:
        """Remove the hooks; what they counted stays readable."""
        while self._attached:
            os.close(self._attached.pop()[-1])
        if self._returns:
            self._returns.close()
            self._returns = None

    def abandon(self) -> None:
        """Let go of the hooks, in a fork of the process that attached (see ``forks``)."""
        while self._attached:
            os.close(self._attached.pop()[-1])
        if self._returns:
            self._returns.abandon()
            self._returns = None

    def close(self) -> None:
        """Detach, and free the programs."""
        self.detach()
        if self._in_flight:
            self._in_flight.close()
            self._in_flight = None
        for descriptor in self._programs.values():
            with suppress(OSError):
                os.close(descriptor)
        self._programs.clear()
