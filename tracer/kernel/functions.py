"""What stands in the way of hooking the kernel's functions and of telling handlers by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tracer.errors import Exit
from tracer.kernel.features import Features, Function
from tracer.kernel.obstacles import Obstacle, Subject, lowered
from tracer.model.hooks import Backend

_FENTRY: Final = frozenset({Backend.FENTRY})

#: What is lost without each function, and which backends with it.
_ROLES: Final = {
    "do_page_mkwrite": ("Calls cannot be traced with this backend, at best at each handler.", _FENTRY),
    "fault_dirty_shared_page": ("The outcomes writable and raced cannot be told apart.", frozenset()),
    "do_wp_page": ("Write-protect faults are not counted.", frozenset()),
}


#: By id, the exit code where a function's obstacle ends a command.
_CODES: Final = {
    "function-missing": Exit.NO_FUNCTION,
    "function-ambiguous": Exit.NO_FUNCTION,
    "function-untraceable": Exit.FUNCTION_KEPT,
    "function-blacklisted": Exit.FUNCTION_KEPT,
    "function-patched": Exit.BUSY,
}


def function_problem(function: Function, backend: Backend) -> tuple[str, str] | None:
    """Why a function cannot be hooked with a backend, if it is known: the problem, the obstacle's id."""
    name = function.name
    if not function.copies:
        return f"This kernel has no function {name}; the compiler may have inlined it.", "function-missing"
    if function.copies > 1:
        return f"This kernel has {function.copies} functions {name}: it is not unique.", "function-ambiguous"
    if function.traceable is False:
        return f"The kernel does not let {name} be traced: ftrace does not list it.", "function-untraceable"
    if function.blacklisted and backend is Backend.KPROBE:
        return f"The kernel keeps kprobes off {name}: it is blacklisted.", "function-blacklisted"
    return None


def functions(features: Features) -> Iterator[Obstacle]:
    """Yield what is in the way of hooking each function that tracing wants."""
    for function in features.functions:
        cost, blocks = _ROLES[function.name]
        found = function_problem(function, Backend.FENTRY)
        if not found and (found := function_problem(function, Backend.KPROBE)):
            cost, blocks = f"With the kprobe backend: {lowered(cost)}", frozenset()
        if not found and function.patched:
            cost, blocks = "fentry may be refused (EBUSY); kprobes take its place then.", frozenset()
            found = f"A live patch, or a tracer that changes its flow, is on {function.name}.", "function-patched"
        if found:
            problem, number = found
            yield Obstacle(
                number,
                Subject.FUNCTIONS,
                problem,
                cost,
                "Use another of the distribution's kernels, or report this kernel's version to mkwrite.",
                _CODES[number],
                blocks,
            )


def names(features: Features) -> Iterator[Obstacle]:
    """Yield what is in the way of naming handlers."""
    if features.addresses_hidden:
        yield hidden(features)


def gain(features: Features, capability: str) -> str:
    """How this process gets a capability."""
    return f"Add {capability}: root lacks it here." if features.root else f"Run mkwrite as root, or add {capability}."


def hidden(features: Features) -> Obstacle:
    """Return the obstacle that the kernel shows no addresses, to whom, and why."""
    always = features.kptr_restrict == 2
    return Obstacle(
        "addresses-hidden",
        Subject.NAMES,
        "The kernel hides the addresses of its functions"
        + (" from everybody (kernel.kptr_restrict = 2)." if always else " from this process."),
        "Handlers cannot be named: they are shown as addresses.",
        "Set it to 1: sysctl kernel.kptr_restrict=1." if always else gain(features, "CAP_SYSLOG"),
        Exit.HIDDEN,
    )
