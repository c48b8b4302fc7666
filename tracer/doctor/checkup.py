"""Whether tracing works here: the facts, what is in the way, and what became of trying.

``checkup`` infers from ``tracer.kernel``; the trial, which attaches for a moment, is the caller's to give.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tracer.errors import Exit, MkwriteError
from tracer.kernel.btf import VMLINUX, Btf
from tracer.kernel.checks import obstacles
from tracer.kernel.features import Features, Function, read
from tracer.kernel.functions import function_problem
from tracer.kernel.obstacles import Obstacle, Subject, decisive, lowered, ruling
from tracer.kernel.refusals import explain_refusal
from tracer.model.hooks import FUNCTION_BACKENDS, Backend, Hook
from tracer.model.losses import FENTRY_PREEMPTED
from tracer.text import printable

#: Attaches for a moment and says what became of every hook; raises MkwriteError where tracing cannot begin.
Attempt = Callable[[], tuple[Hook, ...]]


class FindingState(StrEnum):
    """How a row stands; UNKNOWN is what this process may not see."""

    OK = "ok"
    WARNING = "warning"
    OBSTACLE = "obstacle"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding. ``id`` is the obstacle's; it, ``cost`` and ``cure`` may be empty."""

    section: str
    name: str
    state: FindingState
    text: str
    cost: str = ""
    cure: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Checkup:
    """All findings. ``backend`` is the one that tracing uses, None where it cannot; ``reason`` says why."""

    release: str
    rows: tuple[Finding, ...]
    backend: Backend | None
    reason: str
    exit_code: Exit

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON: plain strings, escaped, numbers and lists."""
        return {
            "works": self.exit_code is Exit.OK,
            "exit_code": int(self.exit_code),
            "kernel": printable(self.release),
            "backend": self.backend and self.backend.value,
            "reason": printable(self.reason),
            "rows": [
                {
                    "section": row.section,
                    "name": row.name,
                    "state": row.state.value,
                    "text": printable(row.text),
                    "cost": row.cost,
                    "cure": row.cure,
                    "id": row.id,
                }
                for row in self.rows
            ],
        }


def checkup(attempt: Attempt | None = None) -> Checkup:
    """Look at this kernel and process, and, if nothing known forbids it, try."""
    features = read()
    return judge(features, btf_functions(features), attempt)


def btf_functions(features: Features) -> frozenset[str] | None:
    """Which of the functions to hook the kernel's BTF has, as fentry needs; None if it cannot be read."""
    try:
        with Btf(VMLINUX) as btf:
            return frozenset(f.name for f in features.functions if btf.function(f.name) is not None)
    except MkwriteError:
        return None


def judge(features: Features, described: frozenset[str] | None, attempt: Attempt | None = None) -> Checkup:
    """Return the report that follows from ``features``, the functions that BTF describes, and a trial."""
    found = obstacles(features)
    rows = list(_environment(features, found))
    for function in features.functions:
        rows += (_hook(features, found, described, function, backend) for backend in FUNCTION_BACKENDS)
    if ending := ruling(found):
        return Checkup(features.release, tuple(rows), None, ending.problem, ending.code)
    backend, reason = _preference(features, found)
    if attempt is None:
        return Checkup(features.release, tuple(rows), backend, reason, Exit.OK)
    try:
        hooks = _try(attempt, features)
    except MkwriteError as error:
        rows.append(Finding("trial", "attaching", FindingState.OBSTACLE, error.problem, cure=error.cure))
        return Checkup(features.release, tuple(rows), None, error.problem, error.code)
    rows.extend(_tried(hook) for hook in hooks)
    used = next((hook.backend for hook in hooks if hook.attached), None)
    if used is None:
        return Checkup(features.release, tuple(rows), None, "No hook could be attached.", Exit.NO_HOOKS)
    if used is not backend:
        reason = f"The {backend.value} backend was tried, and did not attach."
    return Checkup(features.release, tuple(rows), used, reason, Exit.OK)


def _try(attempt: Attempt, features: Features) -> tuple[Hook, ...]:
    try:
        return attempt()
    except OSError as error:
        raise explain_refusal(error, "attach the hooks", features=features) from error


def _preference(features: Features, found: list[Obstacle]) -> tuple[Backend, str]:
    """Return the best backend of which nothing is in the way, and why: see ``probes.plan``."""
    against = {backend: decisive(found, backend) for backend in FUNCTION_BACKENDS}
    if all(against.values()):
        why = "; ".join(f"{backend}: {lowered(o.problem.rstrip('.'))}" for backend, o in against.items() if o)
        return (
            Backend.TRACEPOINT,
            f"no function can be hooked ({why}). SIGBUS, wp faults and throttling are shown, calls and latencies not.",
        )
    if fentry := against[Backend.FENTRY]:
        return Backend.KPROBE, f"fentry is ruled out: {lowered(fentry.problem)}"
    if not features.preemptible:
        return Backend.FENTRY, "It costs least a call, and misses no return of a call that sleeps."
    if kprobe := against[Backend.KPROBE]:
        return (
            Backend.FENTRY,
            f"kprobe is ruled out: {lowered(kprobe.problem)} {FENTRY_PREEMPTED}",
        )
    return Backend.KPROBE, "This kernel preempts BPF programs, and fentry misses calls meanwhile; kprobe does not."


def _environment(features: Features, found: list[Obstacle]) -> Iterator[Finding]:
    """Yield a row for each subject without an obstacle, and one for each obstacle, in the order of the subjects."""
    for subject in Subject:
        against = [obstacle for obstacle in found if obstacle.subject is subject]
        for o in against:
            state = FindingState.OBSTACLE if o.blocks else FindingState.WARNING
            yield Finding("host", subject.value, state, o.problem, o.cost, o.cure, o.id)
        if not against:
            state, text = _fact(features, subject)
            yield Finding("host", subject.value, state, text)
    if features.unread:
        text = f"This process may not read {', '.join(features.unread)}."
        cure = "Lockdown, a security module or the mounts of this container keep root from it: allow it there."
        yield Finding(
            "host", "not readable", FindingState.UNKNOWN, text, "",
            cure if features.root else "Run mkwrite doctor as root to see all.",
        )  # fmt: skip


def _fact(features: Features, subject: Subject) -> tuple[FindingState, str]:
    """Return what is to be said of a subject without an obstacle."""
    match subject:
        case Subject.KERNEL:
            return FindingState.OK, f"{features.release} {features.machine}, {features.cpus} possible CPUs"
        case Subject.PRIVILEGES:
            return FindingState.OK, ", ".join(sorted(features.capabilities))
        case Subject.LOCKDOWN if features.lockdown is None:
            return FindingState.UNKNOWN, "not known (securityfs is not mounted, or the kernel has no lockdown)"
        case Subject.LOCKDOWN:
            harmless = " (harmless to tracing)" if features.lockdown == "integrity" else ""
            return FindingState.OK, f"{features.lockdown}{harmless}"
        case Subject.BPF:
            if any(features.load_errors.values()) and not features.can("CAP_BPF"):
                return FindingState.UNKNOWN, "not tried: this process lacks the capabilities"
            sysctl = _sysctl("unprivileged_bpf_disabled", features.unprivileged_bpf_disabled)
            return FindingState.OK, f"programs can be loaded{sysctl}"
        case Subject.BTF:
            return FindingState.OK, str(VMLINUX)
        case Subject.BCC:
            return FindingState.OK, f"{features.bcc.version}, for {features.bcc.python}"
        case Subject.MEMORY if not features.memlock_charged:
            return FindingState.OK, "BPF maps do not count as locked memory"
        case Subject.MEMORY:
            limit = "unlimited" if features.memlock is None else f"{features.memlock >> 10} KiB"
            return FindingState.OK, f"{limit}" + (", can be raised" if features.memlock is not None else "")
        case Subject.FENTRY:
            if not (features.can("CAP_BPF") and features.can("CAP_PERFMON")):
                return FindingState.UNKNOWN, "BPF trampolines; not tried: this process lacks the capabilities"
            return FindingState.OK, "BPF trampolines, and tracing programs are allowed"
        case Subject.KPROBES:
            return FindingState.OK, f"available{_sysctl('perf_event_paranoid', features.perf_event_paranoid)}"
        case Subject.TRACEFS if features.tracefs is None:
            return FindingState.OK, "not mounted; only the kprobe backend needs it"
        case Subject.TRACEFS:
            return FindingState.OK, str(features.tracefs)
        case Subject.FUNCTIONS:
            return FindingState.OK, ", ".join(function.name for function in features.functions)
        case Subject.NAMES:
            return FindingState.OK, f"{len(features.handlers)} handlers: {', '.join(features.handlers)}"
        case Subject.PIDS:
            return FindingState.OK, "the host's"


def _sysctl(name: str, value: int | None) -> str:
    return "" if value is None else f" (kernel.{name} = {value})"


def _hook(
    features: Features,
    found: list[Obstacle],
    described: frozenset[str] | None,
    function: Function,
    backend: Backend,
) -> Finding:
    """Whether a function can be hooked with a backend, as far as can be told without trying."""
    name = function.name
    label = f"{name} {backend.value}"
    general = [o for o in found if o.subject is not Subject.FUNCTIONS]
    if against := function_problem(function, backend):
        return Finding("hooks", label, FindingState.OBSTACLE, against[0], id=against[1])
    if backend is Backend.FENTRY and described is not None and name not in described:
        return Finding("hooks", label, FindingState.OBSTACLE, f"The kernel's type information has no function {name}.")
    if ruled_out := decisive(general, backend):
        return Finding("hooks", label, FindingState.OBSTACLE, f"not possible, see {ruled_out.subject}", id=ruled_out.id)
    if function.traceable is None and features.tracefs is not None:
        return Finding("hooks", label, FindingState.UNKNOWN, "nothing known against it; ftrace's list cannot be read")
    return Finding("hooks", label, FindingState.OK, "can be attached")


def _tried(hook: Hook) -> Finding:
    state = FindingState.OK if hook.attached else FindingState.WARNING
    text = "attached, and detached again" if hook.attached else hook.detail or "not attached"
    return Finding("trial", f"{hook.name} {hook.backend.value}", state, text)
