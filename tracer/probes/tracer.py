"""The hooks of one tracer: which programs on which functions, attached in the order that loses nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from tracer.model import Backend, Hook
from tracer.probes import program
from tracer.probes.attach import ReturnProbes, attach_fentry, attach_kprobe
from tracer.probes.maps import Events, Maps
from tracer.probes.program import BpfObject

#: After a hook is gone, programs that were running then have ended after this time.
_SETTLE_S = 0.02


@dataclass(frozen=True, slots=True)
class Place:
    """One program on one kernel function: at its entry, or at its return."""

    program: str
    function: str
    at_return: bool = False

    @property
    def name(self) -> str:
        """What the hook is called in output."""
        return f"{self.function}:{'return' if self.at_return else 'entry'}"


@dataclass(slots=True)
class _State:
    maps: dict[str, int] = field(default_factory=dict)
    programs: dict[str, int] = field(default_factory=dict)
    attached: list[tuple[Place, int]] = field(default_factory=list)


class Tracer:
    """Loads an object, attaches its programs and reads its maps. ``close`` leaves nothing behind.

    ``wanted`` are the keys of the filters' map. ``places`` are attached in the order given and detached in the
    opposite one. A place at a return comes before the entry of the same function: a call that was already running
    then shows as an unmatched return, instead of an entry that never ends.
    """

    def __init__(
        self,
        bpf: BpfObject,
        backend: Backend,
        wanted: Iterable[bytes],
        places: Iterable[Place],
        btf_id: Callable[[str], int | None],
    ) -> None:
        """Raises OSError as the kernel refuses, MkwriteError for what tracefs lacks; nothing stays attached then."""
        self._bpf = bpf
        self._backend = backend
        self._state = _State()
        self._returns: ReturnProbes | None = None
        self._maps: Maps | None = None
        self._events: Events | None = None
        try:
            self._state.maps = program.create_maps(bpf)
            for key in wanted:
                program.insert(self._state.maps["wanted"], key, b"\1")
            self._maps = Maps(bpf, self._state.maps)
            self._events = Events(bpf, self._state.maps)
            for place in places:
                self.attach(place, btf_id)
        except BaseException:
            self.close()
            raise

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
    def hooks(self) -> tuple[Hook, ...]:
        """What is attached."""
        return tuple(
            Hook(place.name, place.function, self._backend, attached=True) for place, _ in self._state.attached
        )

    def attach(self, place: Place, btf_id: Callable[[str], int | None]) -> None:
        """Load the program if it is not yet, and attach it."""
        if self._backend is Backend.FENTRY:
            number = btf_id(place.function)
            if number is None:
                raise OSError(2, f"{place.function} is not in the kernel's BTF")
            kind = program.FEXIT if place.at_return else program.FENTRY
            loaded = program.load(self._bpf, place.program, self._state.maps, program.TRACING, kind, number)
            self._state.programs[place.program] = loaded
            self._state.attached.append((place, attach_fentry(loaded)))
            return
        if place.program not in self._state.programs:
            self._state.programs[place.program] = program.load(
                self._bpf, place.program, self._state.maps, program.KPROBE
            )
        loaded = self._state.programs[place.program]
        if not place.at_return:
            self._state.attached.append((place, attach_kprobe(loaded, place.function)))
            return
        if self._returns is None:
            self._returns = ReturnProbes()
        self._state.attached.append((place, self._returns.attach(loaded, place.function)))

    def missed(self) -> int:
        """Probes that the kernel says it skipped: a nested program, or an exhausted pool of return probes."""
        total = sum(map(program.recursion_misses, self._state.programs.values()))
        return total + (self._returns.missed() if self._returns else 0)

    def detach(self) -> None:
        """Remove the hooks, the last attached first. The maps stay readable."""
        while self._state.attached:
            os.close(self._state.attached.pop()[1])
            time.sleep(_SETTLE_S)
        if self._returns:
            self._returns.close()
            self._returns = None

    def close(self) -> None:
        """Detach everything and free programs and maps."""
        self.detach()
        if self._events:
            self._events.close()
            self._events = None
        if self._maps:
            self._maps.close()
            self._maps = None
        for descriptor in (*self._state.programs.values(), *self._state.maps.values()):
            with suppress(OSError):
                os.close(descriptor)
        self._state = _State()
