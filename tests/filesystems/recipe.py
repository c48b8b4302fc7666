"""What is expected of a filesystem, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias, TypeVar

from tests.filesystems.stage import Stage, release

T = TypeVar("T", bound=str)
#: A value, or one by the series from which on it holds.
Since: TypeAlias = T | Mapping[tuple[int, int], T]


class Full(StrEnum):
    """What a write into a hole does when no space is left."""

    FAULT = "SIGBUS at the fault"
    WRITEBACK = "accepted, msync fails"
    LOST = "accepted, nothing fails"
    GIVEN = "a file has no holes"
    MMAP = "mmap fails"
    ENDLESS = "it has no limit of its own"


class State(StrEnum):
    """What becomes of a recipe on the running kernel."""

    SEEN = "seen"
    SILENT = "no call"
    REFUSED = "mmap refused"
    ABSENT = "absent"
    UNRUN = "not run"


@dataclass(frozen=True)
class Place:
    """Where files are made. ``seen`` is the mount point to be told, ``fills`` where to fill it up: else both ``path``.

    ``peer`` is who is behind it, as the tracer must tell.
    """

    path: Path
    seen: Path | None = None
    fills: Path | None = None
    peer: str = ""


@dataclass(frozen=True, eq=False)  # to be hashable: pytest groups tests by it
class Recipe:
    """One row of the matrix.

    ``handler`` and ``fstype`` are what the tracer must tell of it; without a handler no call is made, and ``why`` says
    why. ``errno`` is what ``sigbus`` has seen of a refusal, "" where nothing; then it infers ``inferred``. ``absent``
    says why a kernel has no such ``module``, "" where it has it. ``files`` exist already, and keep their size.
    ``refused`` is the errno of mmap(2) where it allows no shared writable mapping. ``unrun``: why it is not mounted
    here; then only its handler is hooked. ``dax``: of a DAX mapping, what is asked for a page that is mapped read-only;
    ``handler`` is for the others. ``delays``: what was written takes its space at writeback, and until then a fault can
    have it. ``repeats``: a page may be written back between the fault and the store, which then faults once more.
    """

    name: str
    module: str
    fstype: str
    handler: Since[str]
    build: Callable[[Stage], Place | Path] | None = None
    full: Since[Full] = Full.FAULT
    errno: Since[str] = ""
    inferred: str = ""
    absent: Since[str] = ""
    why: str = ""
    files: tuple[str, ...] = ()
    stride: int = 256 << 10
    refused: str = ""
    unrun: str = ""
    dax: str = ""
    delays: bool = False
    repeats: bool = False
    short: bool = False

    @property
    def state(self) -> State:
        """What is to be expected of it here."""
        if now(self.absent):
            return State.ABSENT
        if self.unrun:
            return State.UNRUN
        if self.refused:
            return State.REFUSED
        return State.SEEN if now(self.handler) else State.SILENT


def now(value: Since[T]) -> T:
    """What holds on the running kernel."""
    if not isinstance(value, Mapping):
        return value
    return value[max(since for since in value if since <= release())]
