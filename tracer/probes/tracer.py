"""The hooks of one tracer: which programs on which functions, attached in the order that loses nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from tracer.errors import MkwriteError
from tracer.kernel.btf import Btf
from tracer.kernel.module_btf import ModuleBtf
from tracer.kernel.refusals import denied, refusal_text
from tracer.model.hooks import Backend, Hook
from tracer.probes import program
from tracer.probes.attach import ReturnProbes, attach_fentry, attach_kprobe, attach_multi, attach_raw_tracepoint
from tracer.probes.forks import let_go_in_forks
from tracer.probes.maps import Events, Maps
from tracer.probes.program import BpfObject

#: After a hook is gone, programs that were running then have ended after this time.
_SETTLE_S = 0.02


@dataclass(frozen=True, slots=True)
class HookPoint:
    """One program on one kernel function: at its entry, or at its return; or on the tracepoint of that name.

    ``optional``: nothing is counted wrongly without it. ``own`` are the settings of this hook alone. ``address``: of
    the function, for a kprobe that is attached by a kprobe.multi link.
    """

    program: str
    function: str
    backend: Backend
    at_return: bool = False
    tracepoint: bool = False
    optional: bool = False
    own: tuple[tuple[int, int], ...] = ()
    address: int = 0

    @property
    def name(self) -> str:
        """What the hook is called in output."""
        what = self.program if self.tracepoint else "return" if self.at_return else "entry"
        return f"{self.function}:{what}"


_Key = tuple[str, str, bool, tuple[tuple[int, int], ...]]


@dataclass(slots=True)
class _State:
    maps: dict[str, int] = field(default_factory=dict)
    #: By place: each fentry program is loaded for its function, a kprobe program once for all of its functions.
    programs: dict[_Key, int] = field(default_factory=dict)
    attached: list[tuple[HookPoint, int]] = field(default_factory=list)
    missing: list[Hook] = field(default_factory=list)


class Tracer:
    """Loads an object for each backend in use, attaches programs and reads maps. ``close`` leaves nothing behind.

    The objects share their maps. ``wanted`` are the keys of the filters' map. ``places`` are attached in the order
    given and detached in the opposite one. A place at a return comes before the entry of the same function: a call
    that was already running then shows as an unmatched return, instead of an entry that never ends.
    """

    def __init__(
        self,
        objects: Mapping[Backend, BpfObject],
        wanted: Iterable[bytes],
        places: Iterable[HookPoint],
        types: Btf | None,
    ) -> None:
        """Open it; raises OSError as the kernel refuses, MkwriteError if tracefs lacks something, all detached."""
        self._objects = objects
        self._state = _State()
        self._returns: ReturnProbes | None = None
        self._maps: Maps | None = None
        self._events: Events | None = None
        self._failures: Events | None = None
        let_go_in_forks(self)
        try:
            specs = {name: spec for bpf in objects.values() for name, spec in bpf.maps.items()}
            self._state.maps = program.create_maps(specs)
            for key in wanted:
                program.insert(self._state.maps["wanted"], key, b"\1")
            self._maps = Maps(specs, self._state.maps)
            self._events = Events(specs, self._state.maps, "events", "scratch")
            if "failures" in specs:
                self._failures = Events(specs, self._state.maps, "failures", "failing")
            for place in places:
                self.attach_if_possible(place, types)
        except BaseException:
            self.close()
            raise

    @property
    def descriptors(self) -> Mapping[str, int]:
        """The maps, for further programs; they stay this tracer's."""
        return self._state.maps

    @property
    def maps(self) -> Maps:
        """Counters."""
        assert self._maps is not None
        return self._maps

    @property
    def events(self) -> Events:
        """Events."""
        assert self._events is not None
        return self._events

    @property
    def failures(self) -> Events | None:
        """Failures; None without the programs that tell of them."""
        return self._failures

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """What is attached and how often the kernel skipped each since, and what could not be attached."""
        returns = self._returns.missed() if self._returns else {}
        attached = (
            Hook(
                place.name,
                place.function,
                place.backend,
                attached=True,
                missed=program.recursion_misses(self._state.programs[self._key(place)])
                + (returns.get(place.function, 0) if place.at_return else 0),
            )
            for place, _ in self._state.attached
        )
        return (*attached, *self._state.missing)

    def missed(self) -> int:
        """How often the kernel skipped a program, or a return; a program shared by several hooks counts once."""
        total = sum(map(program.recursion_misses, self._state.programs.values()))
        return total + (sum(self._returns.missed().values()) if self._returns else 0)

    @property
    def programs(self) -> Iterator[tuple[str, int]]:
        """What is loaded: name, descriptor."""
        return ((name, descriptor) for (name, *_), descriptor in self._state.programs.items())

    def loaded(self, name: str) -> int:
        """Return a raw tracepoint program that no hook runs. Raises OSError as the kernel refuses."""
        key = (name, "", False, ())
        if key not in self._state.programs:
            bpf = next(iter(self._objects.values()))
            self._state.programs[key] = program.load(bpf, name, self._state.maps, program.RAW_TRACEPOINT)
        return self._state.programs[key]

    def attach_if_possible(self, place: HookPoint, types: Btf | None) -> None:
        """Do the same, but tell among the hooks what an optional place lacks."""
        of_a_pair = place.optional and not place.tracepoint
        if of_a_pair and any(hook.function == place.function for hook in self._state.missing):
            return  # what an entry keeps, only the return takes away
        try:
            self.attach(place, types)
        except (OSError, MkwriteError) as error:
            if not place.optional:
                raise
            self.miss(place, error)

    def miss(self, place: HookPoint, error: OSError | MkwriteError) -> None:
        """Tell of an optional place that it could not be attached."""
        self._state.missing.append(
            Hook(
                place.name,
                place.function,
                place.backend,
                attached=False,
                detail=refusal_text(error),
                denied=denied(error),
            )
        )

    def attach(self, place: HookPoint, types: Btf | None = None) -> None:
        """Load the program if it is not yet, and attach it; ``types`` are those that a fentry program's function is of.

        Raises OSError as the kernel refuses, MkwriteError for what tracefs lacks.
        """
        key = self._key(place)
        known = key in self._state.programs
        try:
            if not known:
                self._state.programs[key] = self._load(place, types)
            self._state.attached.append((place, self._hook(place, self._state.programs[key])))
        except (OSError, MkwriteError) as error:
            if not known and key in self._state.programs:
                os.close(self._state.programs.pop(key))
            if isinstance(error, OSError):
                error.filename = error.filename or place.function  # what was refused
            raise

    def _hook(self, place: HookPoint, loaded: int) -> int:
        if place.tracepoint:
            return attach_raw_tracepoint(loaded, place.function)
        if place.backend is Backend.FENTRY:
            return attach_fentry(loaded)
        if place.address:
            return attach_multi(loaded, place.address, place.at_return)
        if not place.at_return:
            return attach_kprobe(loaded, place.function)
        if self._returns is None:
            self._returns = ReturnProbes()
        return self._returns.attach(loaded, place.function)

    def _load(self, place: HookPoint, types: Btf | None) -> int:
        # Some programs of a fentry object are for kprobes.
        bpf = self._objects.get(place.backend) or next(iter(self._objects.values()))
        maps, own = self._state.maps, dict(place.own)
        if place.tracepoint:
            return program.load(bpf, place.program, maps, program.RAW_TRACEPOINT, own=own)
        if place.backend is Backend.KPROBE:
            attach = program.KPROBE_MULTI if place.address else 0
            return program.load(bpf, place.program, maps, program.KPROBE, attach, own=own)
        number = types.function(place.function) if types else None
        if number is None:
            raise OSError(2, f"{place.function} is not in the kernel's BTF")
        kind = program.FEXIT if place.at_return else program.FENTRY
        module = types.descriptor if isinstance(types, ModuleBtf) else 0
        return program.load(bpf, place.program, maps, program.TRACING, kind, number, module, own)

    @staticmethod
    def _key(place: HookPoint) -> _Key:
        function = place.function if place.backend is Backend.FENTRY else ""
        return place.program, function, bool(place.address), place.own

    def release(self, function: str) -> None:
        """Remove the hooks of one function, whose module may be gone."""
        for place, descriptor in [one for one in self._state.attached if one[0].function == function]:
            self._state.attached.remove((place, descriptor))
            os.close(descriptor)
        if self._returns:
            self._returns.remove(function)

    def detach(self) -> None:
        """Remove the hooks, the last attached first. The maps stay readable."""
        while self._state.attached:
            place, descriptor = self._state.attached.pop()
            os.close(descriptor)
            if not place.optional:
                time.sleep(_SETTLE_S)
        if self._returns:
            self._returns.close()
            self._returns = None

    def abandon(self) -> None:
        """Let go of the hooks, in a fork of the process that attached (see ``forks``)."""
        while self._state.attached:
            os.close(self._state.attached.pop()[1])
        if self._returns:
            self._returns.abandon()
            self._returns = None

    def close(self) -> None:
        """Detach everything and free programs and maps."""
        self.detach()
        for ring in (self._events, self._failures):
            if ring:
                ring.close()
        self._events = self._failures = None
        if self._maps:
            self._maps.close()
            self._maps = None
        for descriptor in (*self._state.programs.values(), *self._state.maps.values()):
            with suppress(OSError):
                os.close(descriptor)
        self._state = _State()
