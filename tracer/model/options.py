"""How a session traces, and what: options and filters. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum

from tracer.errors import UsageError
from tracer.model.hooks import Backend


class By(StrEnum):
    """A further label on every series, on demand."""

    PROCESS = "process"
    FILE = "file"
    CGROUP = "cgroup"


@dataclass(frozen=True, slots=True)
class Filters:
    """What to trace; an empty tuple means all. Several values of one kind are alternatives.

    Raises UsageError for what is no tuple, and for a value that is no string, or no number among ``pids``.
    """

    fs: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    comms: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not isinstance(value, tuple):  # a string would be taken for its letters
                raise UsageError(
                    f"Filters({one.name}={value!r}) is no tuple.", f"For one value, write Filters({one.name}=(value,))."
                )
            kind = int if one.name == "pids" else str
            if wrong := [each for each in value if not isinstance(each, kind)]:
                raise UsageError(
                    f"Filters({one.name}={value!r}) has {wrong[0]!r}, which is no {kind.__name__}.",
                    f"{one.name} takes values of the type {kind.__name__} only.",
                )


@dataclass(frozen=True)  # no slots: the defaults are read from the class
class Options:
    """How a session traces. Raises UsageError for options that would do nothing together, and for a value that is none.

    ``backend`` and ``by`` may be given by name, such as "fentry" and "process".
    ``slower_ns``: send an event for calls at least that slow. ``max_series``: room in the kernel for so many series,
    see docs/internals.md. ``failures``: tell of each, and count them by class and errno; a call that succeeds pays
    nothing for that, and without them a session starts faster. ``every_errno``: hook functions, too, that run at calls
    that succeed, where only they return an errno. ``make_room``: with By.PROCESS and By.CGROUP, once half of the room
    is used, a snapshot is the last one with the series of what is gone; the same holds for filesystems that have ended,
    however much room there is. For who adds snapshots up, see ``Snapshot.gone``. ``waits``: tell what calls waited for.
    ``all_writes``: tell one by one also of files that lost writes at writeback and that nobody had mapped.
    """

    backend: Backend | None = None
    filters: Filters = field(default_factory=Filters)
    by: By | None = None
    slower_ns: int | None = None
    max_series: int = 4096
    failures: bool = True
    every_errno: bool = False
    make_room: bool = False
    waits: bool = False
    all_writes: bool = False

    def __post_init__(self) -> None:
        self._resolve("backend", Backend)
        self._resolve("by", By)
        for name, least in (("slower_ns", 0), ("max_series", 1)):
            value = getattr(self, name)
            unset = value is None and name == "slower_ns"
            if not unset and (not isinstance(value, int) or value < least):
                raise UsageError(f"{name}={value!r} is no number to trace with.", f"Give an int from {least} on.")
        of_calls = {
            "slower_ns": self.slower_ns is not None,
            "every_errno": self.every_errno,
            "waits": self.waits,
        }
        if self.backend is Backend.TRACEPOINT and (vain := [name for name, given in of_calls.items() if given]):
            raise UsageError(
                f"The tracepoint backend sees no calls, so {vain[0]} does nothing with it.",
                f"Leave {vain[0]} out, or choose another backend.",
            )
        for name in ("every_errno", "all_writes"):
            if getattr(self, name) and not self.failures:
                raise UsageError(f"{name} does nothing without failures.", f"Leave {name} or failures=False out.")

    def _resolve(self, name: str, kind: type[StrEnum]) -> None:
        """Make a member of its enum of what may be the member's name."""
        value = getattr(self, name)
        if value is None:
            return
        if value not in list(kind):
            raise UsageError(f"{name}={value!r} is none that there is.", f"There are: {', '.join(kind)}.")
        object.__setattr__(self, name, kind(value))  # frozen
