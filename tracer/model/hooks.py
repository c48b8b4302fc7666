"""Hooks as types: how they attach, and what the tracer missed. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Loss(StrEnum):
    """What the tracer missed, by kind; the docs say what each means and what to do about it."""

    SERIES_FULL = "series_full"
    INFLIGHT_FULL = "inflight_full"
    EVENTS_FULL = "events_full"
    UNMATCHED_ENTRY = "unmatched_entry"
    UNMATCHED_RETURN = "unmatched_return"
    MISSED_PROBE = "missed_probe"
    FILESYSTEMS_FULL = "filesystems_full"


class Backend(StrEnum):
    """How hooks attach."""

    FENTRY = "fentry"
    KPROBE = "kprobe"
    TRACEPOINT = "tracepoint"


#: Those that hook functions, and so see calls.
FUNCTION_BACKENDS: Final = (Backend.FENTRY, Backend.KPROBE)


@dataclass(frozen=True, slots=True)
class Hook:
    """One place where the tracer attaches, whether it did, and how often the kernel skipped it."""

    name: str
    function: str
    backend: Backend
    attached: bool
    detail: str = ""
    missed: int = 0
    #: Not attached for want of a right, or of tracefs.
    denied: bool = False
