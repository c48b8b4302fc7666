"""What an errno of the kernel means to a tracer's user, given what is known of this kernel."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final

from tracer.errors import Exit, MkwriteError
from tracer.kernel.checks import obstacles
from tracer.kernel.features import FUNCTIONS, Features, read
from tracer.kernel.obstacles import Obstacle, Subject, decisive, lowered, ruling
from tracer.model.hooks import Backend

ENOTSUPP: Final = 524  # the kernel's own, unknown to the C library

#: By errno: the subjects whose obstacles can be behind it, the likeliest first.
_SUSPECTS: Final = {
    errno.EPERM: (Subject.PRIVILEGES, Subject.LOCKDOWN, Subject.MEMORY, Subject.BPF, Subject.FENTRY),
    errno.EACCES: (Subject.PRIVILEGES, Subject.LOCKDOWN, Subject.BPF, Subject.FENTRY),
    errno.ENOSYS: (Subject.BPF,),
    errno.ENOMEM: (Subject.MEMORY,),
    errno.EINVAL: (Subject.LOCKDOWN, Subject.FENTRY, Subject.KPROBES, Subject.BTF, Subject.FUNCTIONS),
    errno.ENOENT: (Subject.KPROBES, Subject.TRACEFS, Subject.FUNCTIONS),
    errno.EBUSY: (Subject.FUNCTIONS,),
    errno.EADDRNOTAVAIL: (Subject.FUNCTIONS,),
    errno.EOPNOTSUPP: (Subject.FENTRY, Subject.KPROBES),
    ENOTSUPP: (Subject.FENTRY, Subject.KPROBES),
}

_DOCTOR = "Run `mkwrite doctor` to see what this kernel allows."

#: By errno: what it means where no known obstacle explains it, what to do, and the exit code.
_MEANINGS: Final = {
    errno.EPERM: (
        "A security module or a seccomp profile forbids it",
        "Allow bpf(2) and perf_event_open(2) for mkwrite in that policy.",
        Exit.NO_PERMISSION,
    ),
    errno.EACCES: (
        "A security module forbids it, or the BPF verifier rejected a program",
        "Run `mkwrite doctor`, and report the kernel's version if it finds nothing.",
        Exit.NO_PERMISSION,
    ),
    errno.ENOSYS: ("This kernel lacks the system call", _DOCTOR, Exit.NO_HOOKS),
    errno.EINVAL: ("This kernel lacks what was asked for", _DOCTOR, Exit.NO_HOOKS),
    errno.EOPNOTSUPP: ("This kernel does not support it", _DOCTOR, Exit.NO_HOOKS),
    ENOTSUPP: ("This kernel does not support it", _DOCTOR, Exit.NO_HOOKS),
    errno.ENOENT: ("There is no such function or event in this kernel", _DOCTOR, Exit.NO_HOOKS),
    errno.EADDRNOTAVAIL: ("The function's name is not unique in this kernel", _DOCTOR, Exit.NO_HOOKS),
    errno.EBUSY: (
        "Another tracer or a live patch holds the function",
        "End it, or use the other backend (--backend).",
        Exit.BUSY,
    ),
    errno.EEXIST: ("There is such an event already", "End the other tracer that has it.", Exit.NO_HOOKS),
    errno.E2BIG: (
        "Too many BPF programs are on the function, or the program is too large for this kernel",
        "End other tracers of the function, or use the other backend (--backend).",
        Exit.BUSY,
    ),
    errno.ENOMEM: (
        "There is not enough memory",
        "Free memory, raise the cgroup's limit, or use a smaller --max-series.",
        Exit.NO_MEMORY,
    ),
    errno.EMFILE: (
        "This process has too many files open",
        "Raise the limit: ulimit -n, or LimitNOFILE= in a unit.",
        Exit.FAILED,
    ),
    errno.ENFILE: ("The system has too many files open", "Raise it: sysctl fs.file-max.", Exit.FAILED),
}


def explain_refusal(
    error: OSError, doing: str, backend: Backend | None = None, features: Features | None = None
) -> MkwriteError:
    """Return what a refusal by bpf(2), perf_event_open(2) or tracefs means here, and what to do.

    ``doing`` completes "The kernel refused to ..."; it names the function, if it is about one. ``backend`` is
    the one in use, if any. The features are read if not given: after a failure, time does not matter.
    """
    number = error.errno or 0
    name = "ENOTSUPP" if number == ENOTSUPP else errno.errorcode.get(number, str(number))
    refused = f"The kernel refused to {doing} ({name})"
    found = obstacles(features or read())
    for subject in _SUSPECTS.get(number, ()):
        for obstacle in found:
            if obstacle.subject is subject and _concerns(obstacle, doing, backend):
                return MkwriteError(f"{refused}: {lowered(obstacle.problem)}", obstacle.cure, obstacle.code)
    unknown = (error.strerror or "unknown error", _DOCTOR, Exit.FAILED)
    reason, cure, code = _MEANINGS.get(number, unknown)
    return MkwriteError(f"{refused}: {lowered(reason)}.", cure, code)


def _concerns(obstacle: Obstacle, doing: str, backend: Backend | None) -> bool:
    """Whether the obstacle can be behind a refusal to do this."""
    if obstacle.subject is Subject.FUNCTIONS:
        return any(name in doing and name in obstacle.problem for name in FUNCTIONS)
    return backend in obstacle.blocks if backend else obstacle.fatal


def last_refusal(error: OSError | MkwriteError, backend: Backend, several: bool) -> MkwriteError:
    """Return what to tell when the last backend was refused; ``several``: others were before it.

    Where none works, what is in the way of each says more than the last refusal.
    """
    features = read()
    overall = ruling(obstacles(features)) if several else None
    if overall is not None:
        return overall
    if isinstance(error, MkwriteError):
        return error
    function = f" to {error.filename}" if error.filename in FUNCTIONS else ""
    return explain_refusal(error, f"attach the {backend} hooks{function}", backend, features)


def why_not(errors: Mapping[Backend, OSError | MkwriteError]) -> str:
    """Why each of these backends cannot be used: what is known to be in its way, else how it was refused."""
    found = obstacles(read())
    reasons = {
        backend: against.problem if (against := decisive(found, backend)) else refusal_text(error)
        for backend, error in errors.items()
    }
    return "; ".join(f"{backend}: {lowered(text).rstrip('.')}" for backend, text in reasons.items())


def refusal_text(error: OSError | MkwriteError) -> str:
    """Return a refusal in a few words."""
    return lowered(error.problem) if isinstance(error, MkwriteError) else str(error.strerror)


def denied(error: OSError | MkwriteError) -> bool:
    """Whether more rights, or tracefs, would have helped; else the kernel cannot do it."""
    if isinstance(error, MkwriteError):
        return error.code in (Exit.NO_PERMISSION, Exit.NO_TRACEFS)
    return error.errno in (errno.EPERM, errno.EACCES, errno.EROFS)
