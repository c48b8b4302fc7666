"""A failure's report as a frame, and as it was again: in JSON it is what ``mkwrite sigbus --json`` prints."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, Final, get_args, get_origin, get_type_hints

from tracer.diagnosis import syscalls
from tracer.diagnosis.diagnose import Diagnosis
from tracer.diagnosis.explainer import Again, Explained
from tracer.export.json.failures import explained_dict
from tracer.export.json.records import exact, text
from tracer.model.calls import FaultPath, Initiator, device_number
from tracer.model.failures import (
    Actor,
    Class,
    Code,
    Diagnosed,
    Disposition,
    Fact,
    Failure,
    FailureSource,
    Signal,
)
from tracer.model.host_state import HostState
from tracer.model.writeback import FileLoss, Told

#: Members of the frame that the report in JSON does not have: its commands, one by one, and what the kernel knew.
_COMMANDS: Final = "commands"
_FACTS: Final = "facts"


def failure_frame(explained: Explained) -> dict[str, Any]:
    """Write a report with all that its text is made of."""
    diagnosis = explained.diagnosis
    commands = {"run": text(diagnosis.run), "check": text(diagnosis.check)}
    return {**explained_dict(explained), _COMMANDS: commands, _FACTS: int(explained.failure.facts)}


def report_of(frame: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report in JSON, as it was printed live."""
    added = (_COMMANDS, _FACTS) if frame["kind"] == "failure" else ("time_ns",)
    return {name: value for name, value in frame.items() if name not in added}


def explained_of(frame: Mapping[str, Any], first: Explained | None = None) -> Explained:
    """Return the report of a frame; ``first`` is the one that it repeats, if it does.

    Raises ValueError, KeyError or TypeError for what is none.
    """
    failure = failure_of(frame)
    commands = frame[_COMMANDS]
    diagnosis = Diagnosis(
        Class(frame["class"]),
        exact(frame["cause"]),
        exact(frame["remedy"]),
        exact(commands["check"]),
        frame["errno"] or "",
        frame["inferred_from"] or "",
        exact(commands["run"]),
    )
    state = _typed(HostState, frame["host"])
    again = frame["raised_again"]
    repeats = again and Again(first or _unknown(again, diagnosis), bool(again["of_child"]))
    return Explained(failure, state, diagnosis, repeats, frame["loss"] and loss_of(frame["loss"]))


def failure_of(frame: Mapping[str, Any]) -> Failure:
    """Return the failure, as far as its report has it; where that has null, nothing applies."""
    found = {name: value for name, value in frame.items() if value is not None}
    signal = found.get("signal")
    syscall = found.get("syscall")
    return Failure(
        time_ns=int(found["time_ns"]),
        source=FailureSource(found["source"]),
        pid=int(found.get("pid", 0)),
        tid=int(found.get("tid", 0)),
        uid=int(found.get("uid", 0)),
        comm=exact(found.get("comm", "")),
        cgroup_id=int(found.get("cgroup_id", 0)),
        verdict=Diagnosed(Class(found["class"]), found.get("errno", ""), found.get("inferred_from", "")),
        process_comm=exact(found.get("process", "")),
        namespace_pid=int(found.get("namespace_pid", 0)),
        command=tuple(map(exact, found.get("command", ()))),
        command_cut=bool(found.get("command_cut")),
        fstype=exact(found.get("fstype", "")),
        mountpoint=exact(found.get("mountpoint", "")),
        dev=device_number(found.get("device", "0:0")),
        inode=int(found.get("inode", 0)),
        file=exact(found.get("file", "")),
        deleted=bool(found.get("deleted")),
        size=int(found.get("size", 0)),
        allocated=int(found.get("allocated", 0)),
        facts=Fact(int(found.get(_FACTS, 0))),
        handler=exact(found.get("handler", "")),
        path=FaultPath(found.get("path", FaultPath.FIRST_WRITE)),
        write=bool(found.get("write", True)),
        initiator=Initiator(found.get("initiator", Initiator.USER)),
        offset=int(found.get("offset", 0)),
        address=int(found.get("address", "0"), 16),
        ip=int(found.get("instruction", "0"), 16),
        syscall=syscalls.number(syscall) if syscall else -1,
        latency_ns=int(found.get("latency_ns", 0)),
        vm_fault=int(found.get("vm_fault", 0)),
        errno_from=exact(found.get("errno_from", "")),
        ordinal=int(found["ordinal"]),
        inferred=bool(found["inferred"]),
        overridden=Disposition(found["overridden"]) if found.get("overridden") else None,
        signal=signal and _signal(signal, int(found.get("address", "0"), 16)),
    )


def loss_of(found: Mapping[str, Any]) -> FileLoss:
    """Return what had been lost of a file, and who had been told."""
    told = found["told"]
    errors = int(found["errors"])
    return FileLoss(
        int(found["first_ns"]),
        int(found["last_ns"]),
        errors,
        told and _told(told),
        errors if found["exact"] else 0,
        int(found["bytes"] or 0),
        int(found["start"] or 0),
        int(found["end"] or 0),
        int(found.get("forgotten_ns") or 0),  # reports that earlier releases wrote have none
    )


def _told(found: Mapping[str, Any]) -> Told:
    by, name = found["by"], str(found["errno"])
    number = int(name) if name.isdecimal() else int(getattr(errno, name))
    actor = Actor(int(by["pid"]), int(by["tid"]), exact(by["comm"]))
    call = syscalls.number(found["syscall"])
    return Told(int(found["time_ns"]), actor, number, call, int(found["count"]), int(found["last_ns"]))


def _signal(found: Mapping[str, Any], address: int) -> Signal:
    sender = found["sender"]
    by = sender and Actor(int(sender["pid"]), int(sender["tid"]), exact(sender["comm"]))
    uid = int(sender["uid"]) if sender else 0
    return Signal(
        Code(found["code"]), Disposition(found["disposition"]), address, by, uid, exact(found["module"] or "")
    )


def _unknown(again: Mapping[str, Any], diagnosis: Diagnosis) -> Explained:
    """Return the fault that a signal repeats, where its own report is not there: when it was, and whose."""
    pid = int(again["first_pid"])
    first = Failure(int(again["first_time_ns"]), FailureSource.SIGNAL, pid, pid, 0, "", 0)
    return Explained(first, HostState(), diagnosis)


def first_of(found: Mapping[str, Any]) -> Explained:
    """Return what a count of further failures says of the first, whose own report is not there."""
    pid, comm = int(found["pid"] or 0), exact(found["comm"] or "")
    kind, name = Class(found["class"]), found["errno"] or ""
    source = FailureSource.FAULT if pid else FailureSource.WRITEBACK
    failure = Failure(
        int(found["first_time_ns"]), source, pid, pid, 0, comm, 0, Diagnosed(kind, name),
        dev=device_number(found["device"]), inode=int(found["inode"]), file=exact(found["file"]),
    )  # fmt: skip
    return Explained(failure, HostState(), Diagnosis(kind, "", "", errno=name))


def victims_of(found: Mapping[str, Any]) -> list[Failure]:
    """Return the last victims that a count of further failures names."""
    victims = []
    for victim in found["last"]:
        disposition = victim["disposition"]
        signal = disposition and Signal(Code.OTHER, Disposition(disposition), 0)
        pid, comm = int(victim["pid"] or 0), exact(victim["comm"] or "")
        victims.append(Failure(int(victim["time_ns"]), FailureSource.FAULT, pid, pid, 0, comm, 0, signal=signal))
    return victims


def _typed(kind: Any, found: Any) -> Any:
    """Return a value of a type, or of a dataclass of such; members that it has not are left to a newer mkwrite."""
    if hasattr(kind, "__dataclass_fields__"):
        hints = get_type_hints(kind)
        return kind(**{name: _typed(hints[name], value) for name, value in found.items() if name in hints})
    if found is None:
        return None
    if get_origin(kind) is tuple:
        return tuple(_typed(get_args(kind)[0], value) for value in found)
    for one in get_args(kind):
        if one is not type(None):
            return _typed(one, found)
    return exact(found) if kind is str else kind(found)
