"""Failures as JSON objects; the conventions are those of ``tracer.export.json.records``."""

from __future__ import annotations

import errno as errnos
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from tracer.diagnosis import syscalls
from tracer.export.json.records import actor_dict, event_dict, text
from tracer.model.calls import device_name
from tracer.model.failures import Event, Failure, FailureSource
from tracer.model.host_state import HostState
from tracer.model.writeback import FileLoss

if TYPE_CHECKING:
    from tracer.diagnosis.explainer import Explained, Notified, Repeated


#: Members that do not apply where no task and no page is known.
_NO_TASK: Final = dict.fromkeys(
    ("pid", "tid", "namespace_pid", "uid", "comm", "process", "command", "command_cut", "cgroup_id", "offset",
     "address", "instruction", "path", "initiator", "handler", "latency_ns", "vm_fault"),
)  # fmt: skip


def record(event: Event) -> dict[str, object]:
    """Return a failure or a slow call."""
    return failure_dict(event) if isinstance(event, Failure) else {"kind": "call", **event_dict(event)}


def failure_dict(failure: Failure) -> dict[str, object]:
    """Return a failure with all that the kernel said of it; members that do not apply are null."""
    kind, errno, inferred_from = failure.verdict
    return {
        "kind": "failure",
        "class": kind.value,
        "errno": errno or None,
        "errno_from": text(failure.errno_from) or None,
        "inferred_from": inferred_from or None,
        **_members(failure),
        **(_NO_TASK if failure.source is FailureSource.WRITEBACK else {}),
    }


def explained_dict(explained: Explained) -> dict[str, object]:
    """Return a failure with all that is known of it; members that do not apply are null."""
    failure, diagnosis = explained.failure, explained.diagnosis
    return {
        **failure_dict(failure),
        "errno": diagnosis.errno or None,
        "inferred_from": diagnosis.inferred_from or None,
        "cause": text(diagnosis.cause),
        "remedy": text(diagnosis.remedy),
        "run": _commands(diagnosis.run),
        "check": _commands(diagnosis.check),
        "raised_again": _again(explained),
        "host": _state_dict(explained.state),
        "loss": explained.loss and _loss_dict(explained.loss),
    }


def notified_dict(news: Notified) -> dict[str, object]:
    """Programs that were told of a loss at writeback: the first, and how many there were; or that nobody will be."""
    failure = news.first.failure
    return {
        "kind": "told" if news.told else "forgotten",
        "errno": failure.errno_name,
        "device": device_name(failure.dev),
        "inode": failure.inode,
        "file": text(failure.file),
        "first_time_ns": failure.time_ns,
        "loss": _loss_dict(news.loss),
    }


def _loss_dict(loss: FileLoss) -> dict[str, object]:
    told = loss.told
    return {
        "first_ns": loss.first_ns,
        "last_ns": loss.last_ns,
        "errors": loss.errors,
        "bytes": loss.bytes or None,
        "exact": loss.exact,
        "start": loss.start if loss.bytes else None,
        "end": loss.end if loss.bytes else None,
        "told": told
        and {
            "time_ns": told.time_ns,
            "by": actor_dict(told.by),
            "errno": errnos.errorcode.get(told.errno, str(told.errno)),
            "syscall": syscalls.name(told.syscall),
            "count": told.count,
            "last_ns": told.last_ns,
        },
        "forgotten_ns": loss.forgotten_ns or None,
    }


def _again(explained: Explained) -> dict[str, object] | None:
    """Return the fault whose SIGBUS a process has sent to itself again."""
    if explained.again is None:
        return None
    first = explained.again.first.failure
    after_ns = explained.failure.time_ns - first.time_ns
    return {"first_time_ns": first.time_ns, "first_pid": first.pid, "of_child": explained.again.of_child,
            "after_ns": after_ns}  # fmt: skip


def repeated_dict(more: Repeated) -> dict[str, object]:
    """How many more there were of an incident that was told before; ``other``: on files that were not told of."""
    failure, diagnosis = more.first.failure, more.first.diagnosis
    return {
        "kind": "repeated",
        "count": more.count,
        "total": more.total,
        "elapsed_ns": more.elapsed_ns,
        "class": diagnosis.kind.value,
        "errno": diagnosis.errno or None,
        "pid": failure.pid or None,
        "comm": text(failure.comm) or None,
        "device": device_name(failure.dev),
        "inode": failure.inode,
        "file": text(failure.file),
        "first_time_ns": failure.time_ns,
        "last_time_ns": (more.last or (failure,))[-1].time_ns,
        "raised_again": more.first.again is not None,
        "processes": more.processes,
        "files": more.files,
        "other": more.other,
        "last": [
            {
                "pid": victim.pid or None,
                "comm": text(victim.comm) or None,
                "time_ns": victim.time_ns,
                "disposition": victim.signal and victim.signal.disposition.value,
            }
            for victim in more.last
        ],
    }


def _members(failure: Failure) -> dict[str, object]:
    signal = failure.signal
    return {
        "time_ns": failure.time_ns,
        "source": failure.source.value,
        "pid": failure.pid,
        "tid": failure.tid,
        "namespace_pid": failure.namespace_pid or failure.pid,
        "uid": failure.uid,
        "comm": text(failure.comm),
        "process": text(failure.process_comm or failure.comm),
        "command": [text(argument) for argument in failure.command],
        "command_cut": failure.command_cut,
        "cgroup_id": failure.cgroup_id,
        "ordinal": failure.ordinal,
        "address": hex(failure.address),
        "instruction": hex(failure.ip),
        **({} if failure.source is FailureSource.SIGNAL else _of_fault(failure)),
        "inferred": failure.inferred,
        "signal": None
        if signal is None
        else {
            "code": signal.code.value,
            "disposition": signal.disposition.value,
            "module": text(signal.module) or None,
            "sender": None if signal.sender is None else {**actor_dict(signal.sender), "uid": signal.sender_uid},
        },
    }


def _of_fault(failure: Failure) -> dict[str, object]:
    """Return what a signal that no refused fault belongs to does not have."""
    cut = failure.truncation
    return {
        "fstype": text(failure.fstype),
        "mountpoint": text(failure.mountpoint),
        "device": device_name(failure.dev),
        "inode": failure.inode,
        "file": text(failure.file),
        "deleted": failure.deleted,
        "size": failure.size,
        "allocated": failure.allocated,
        "offset": failure.offset,
        "write": failure.write,
        "path": failure.path.value if failure.write else None,
        "overridden": failure.overridden and failure.overridden.value,
        "initiator": failure.initiator.value,
        "syscall": syscalls.name(failure.syscall) if failure.syscall >= 0 else None,
        "handler": text(failure.handler),
        "outcome": failure.outcome and failure.outcome.value,
        "latency_ns": failure.latency_ns,
        "vm_fault": failure.vm_fault,
        "truncated": None
        if cut is None
        else {"time_ns": cut.time_ns, "from_size": cut.from_size, "size": cut.size, "by": actor_dict(cut.by)},
    }


def _commands(lines: str) -> str:
    return text("; ".join(lines.split("\n")))


def _state_dict(state: HostState) -> dict[str, object]:
    return asdict(state, dict_factory=_exact)


def _exact(members: list[tuple[str, object]]) -> dict[str, object]:
    return {name: text(value) if isinstance(value, str) else value for name, value in members}
