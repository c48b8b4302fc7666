"""What an obstacle to tracing is, and what several of them mean for the backends.

Which ones there are on this kernel is found by ``tracer.kernel.checks``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tracer.errors import Exit, MkwriteError
from tracer.model.hooks import Backend


class Subject(StrEnum):
    """What was looked at; an obstacle is one of these not being as it should."""

    KERNEL = "kernel"
    PRIVILEGES = "privileges"
    LOCKDOWN = "lockdown"
    BPF = "bpf"
    BTF = "btf"
    BCC = "bcc"
    MEMORY = "locked memory"
    FENTRY = "fentry"
    KPROBES = "kprobes"
    TRACEFS = "tracefs"
    FUNCTIONS = "functions"
    NAMES = "handler names"
    PIDS = "pid namespace"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One thing in the way. ``blocks`` says which backends it rules out; if none, some detail is lost.

    ``problem``, ``cost`` and ``cure`` are sentences; ``code`` is the exit code where this ends a command.
    """

    id: str
    subject: Subject
    problem: str
    cost: str
    cure: str
    code: Exit
    blocks: frozenset[Backend] = frozenset()

    @property
    def fatal(self) -> bool:
        """Whether it alone makes tracing impossible."""
        return self.blocks == frozenset(Backend)

    def error(self) -> MkwriteError:
        """Return the obstacle as what a command ends with."""
        return MkwriteError(self.problem, self.cure, self.code)


def decisive(found: list[Obstacle], backend: Backend) -> Obstacle | None:
    """Return the obstacle that keeps ``backend`` from being used, None if nothing does."""
    return next((obstacle for obstacle in found if backend in obstacle.blocks), None)


def ruling(found: list[Obstacle]) -> MkwriteError | None:
    """Why nothing can be traced, None if some backend may."""
    against = {backend: decisive(found, backend) for backend in Backend}
    reasons = {backend: obstacle for backend, obstacle in against.items() if obstacle}
    if len(reasons) < len(against):
        return None
    for obstacle in reasons.values():
        if obstacle.fatal:
            return obstacle.error()
    each = "; ".join(f"{backend}: {lowered(o.problem.rstrip('.'))}" for backend, o in reasons.items())
    return MkwriteError(
        f"No backend can be used ({each}).",
        "Run `mkwrite doctor`: it says what to do about each.",
        Exit.NO_HOOKS,
    )


def lowered(sentence: str) -> str:
    """Return a sentence to stand behind a colon; names and abbreviations keep their case."""
    return sentence[:1].lower() + sentence[1:] if sentence[1:2].islower() else sentence
