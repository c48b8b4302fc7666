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

    Raises UsageError for a value that is no tuple.
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


@dataclass(frozen=True)  # no slots: the defaults are read from the class
class Options:
    """How a session traces. Raises UsageError for options that would do nothing together.

    ``slower_ns``: send an event for calls at least that slow. ``max_series``: room in the kernel for so many series,
    see docs/internals.md. ``failures``: tell of each, and count them by class and errno; a call that succeeds pays
    nothing for that, and without them a session starts faster. ``every_errno``: hook functions, too, that run at calls
    that succeed, where only they return an errno. ``make_room``: with By.PROCESS and By.CGROUP, once half of the room
    is used, a snapshot is the last one with the series of what is gone; the same holds for filesystems that have ended,
    however much room there is. For who adds snapshots up, see ``Snapshot.gone``. ``waits``: tell what calls waited for.
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

    def __post_init__(self) -> None:
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
        if self.every_errno and not self.failures:
            raise UsageError("every_errno does nothing without failures.", "Leave every_errno or failures=False out.")
