"""What a user is told when something is refused: one sentence on what is wrong, one on what to do."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line; 2 is bad usage, as everywhere."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_PERMISSION = 10
    NO_BTF = 11
    NO_HOOKS = 12
    LOCKDOWN = 13
    NO_BCC = 14
    NO_MEMORY = 15
    COMPILE = 16
    NO_TRACEFS = 17
    SECCOMP = 18
    BUSY = 19
    AT_RISK = 20
    FOREIGN_BTF = 21
    OLD_BCC = 22
    OTHER_PYTHON = 23
    COMPILER_MEMORY = 24
    NO_FUNCTION = 25
    FUNCTION_KEPT = 26
    HIDDEN = 27
    NOT_ALL_SEEN = 28
    BEYOND_END = 29
    CANNOT_RUN = 126
    NOT_FOUND = 127


class MkwriteError(Exception):
    """An error that a user can act on. ``problem`` and ``cure`` are one sentence each."""

    def __init__(self, problem: str, cure: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(f"{problem} {cure}")
        self.problem = problem
        self.cure = cure
        self.code = code


class UsageError(MkwriteError):
    """Bad input: names something that does not exist, or contradicts itself."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(problem, cure, Exit.USAGE)
