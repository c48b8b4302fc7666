"""Failures as they come: refused faults and SIGBUS, each joined with what the kernel knows of the other."""

from __future__ import annotations

import ctypes as ct
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from tracer.decode.names import Naming, path_of
from tracer.diagnosis.classes import decide
from tracer.model.calls import Filesystem
from tracer.model.failures import Actor, Code, Disposition, Fact, Failure, FailureSource, Signal, Truncation, code_of
from tracer.probes.abi import SOURCES
from tracer.probes.inner import names
from tracer.probes.records import RawSeries

#: A refusal's signal follows it within microseconds; where none comes, the task was killed meanwhile.
SIGNAL_WITHIN_NS: Final = 500_000_000
_IGNORED: Final = 1  # enum trace_signal_generate_result, include/trace/events/signal.h
_SIG_IGN: Final = 1
# FAULT_FLAG_*, include/linux/mm_types.h
_WRITE, _USER = 0x1, 0x40
# VM_FAULT_SIGBUS and VM_FAULT_HWPOISON*: what a signal follows
_SIGNALLED: Final = 0x32


class Join:
    """Refusals that wait for their signal, by the time (CLOCK_MONOTONIC) that names them."""

    def __init__(self) -> None:
        self._pending: dict[int, Failure] = {}

    def __bool__(self) -> bool:
        return bool(self._pending)

    def refused(self, named: int, failure: Failure) -> None:
        """Keep a refusal that a signal is to follow."""
        self._pending[named] = failure

    def signalled(self, named: int, signal: Signal) -> Failure | None:
        """Return the refusal that the signal belongs to, whole now; None where it is not known."""
        refusal = self._pending.pop(named, None)
        if refusal is None:
            return None
        return replace(refusal, signal=signal, address=signal.address or refusal.address)

    def expired(self, before_ns: int) -> list[Failure]:
        """Refusals older than ``before_ns`` of CLOCK_MONOTONIC: no signal will come."""
        return [self._pending.pop(named) for named in sorted(self._pending) if named < before_ns]


class FailureReader:
    """Makes failures of the kernel's records. ``kind`` is the ctypes struct failure of bpf/failure.h."""

    def __init__(self, kind: Any, naming: Naming, inferred: bool = False) -> None:
        """``inferred``: the refusals are."""
        self._kind = kind
        self._naming = naming
        self._inferred = inferred
        self._inner = ("", *names())
        self._join = Join()

    @property
    def waits(self) -> bool:
        """Whether a signal is on its way."""
        return bool(self._join)

    def read(self, records: Iterable[bytes]) -> Iterator[Failure]:
        """Yield the failures that are whole with these records, and those whose signal has not come in time."""
        for record in records:
            event = self._kind.from_buffer_copy(record.ljust(ct.sizeof(self._kind), b"\0"))
            path = record[self._kind.path.offset : self._kind.path.offset + event.path_bytes]
            if SOURCES[event.cause.source] is FailureSource.SIGNAL:
                signal = _signal(event, path)
                yield self._join.signalled(event.refusal, signal) or self._unrefused(event, signal)
                continue
            failure = self._refusal(event, path)
            if event.flags & _USER and event.vm_fault & _SIGNALLED:
                self._join.refused(event.time_ns, failure)
            else:
                yield failure
        yield from self._join.expired(time.monotonic_ns() - SIGNAL_WITHIN_NS)

    def rest(self) -> list[Failure]:
        """Those whose signal has not come, when no more will."""
        return self._join.expired(time.monotonic_ns())

    def _met(self, event: Any, source: FailureSource) -> Failure:
        """Who met it, when and where: what a refusal and a signal have in common."""
        return Failure(
            time_ns=self._naming.clock.at(event.time_ns),
            source=source,
            pid=event.id >> 32,
            tid=event.id & 0xFFFFFFFF,
            uid=event.uid,
            comm=_text(event.comm),
            process_comm=_text(event.process_comm),
            cgroup_id=event.cgroup,
            namespace_pid=event.namespace_pid,
            parent=event.parent,
            command=_command(event),
            command_cut=_command_cut(event),
            address=event.address,
            ip=event.ip,
            ordinal=event.seen,
            kernel_error=event.cause.error,
            facts=Fact(event.cause.facts),
            who=event.cause.who,
            process=event.process,
            burst_monotonic_ns=event.burst_ns,
        )

    def _unrefused(self, event: Any, signal: Signal) -> Failure:
        self._naming.name_series(Filesystem(0), event.cause.who, event.comm, "")
        return decide(replace(self._met(event, FailureSource.SIGNAL), signal=signal))

    def _refusal(self, event: Any, path: bytes) -> Failure:
        cause, source = event.cause, SOURCES[event.cause.source]
        late = source is FailureSource.WRITEBACK
        named = path_of(path, bool(event.deleted), bool(event.cut))
        raw = RawSeries(event.handler, cause.who, cause.dev, event.kind).of(cause.generation)
        self._naming.name_series(raw.filesystem, cause.who, event.comm, named)
        series = self._naming.unlabelled(raw, {raw.filesystem: _text(event.fstype)})
        file = path_of(path, False, bool(event.cut))
        if late and not event.cut:
            file = self._naming.file_at(raw.filesystem, _text(event.fstype), file)
        truncation = None
        if event.truncated_ns:
            by = Actor(event.truncated_by >> 32, event.truncated_by & 0xFFFFFFFF, _text(event.truncated_comm))
            truncation = Truncation(
                self._naming.clock.at(event.truncated_ns), event.truncated_to, by, event.truncated_from
            )
        return decide(
            replace(
                self._met(event, source),
                fstype=series.fstype,
                mountpoint=series.mountpoint,
                dev=cause.dev,
                generation=cause.generation,
                inode=event.inode,
                file=file,
                deleted=bool(event.deleted),
                size=event.size,
                allocated=event.blocks * 512,
                handler=series.handler if event.handler else "",
                path=series.path,
                write=bool(event.flags & _WRITE),
                initiator=series.initiator,
                offset=event.pgoff * 4096,
                syscall=ct.c_int(event.syscall).value,
                latency_ns=event.latency_ns,
                vm_fault=event.vm_fault,
                errno=cause.error,
                errno_from=_recorder(Fact(cause.facts)) if late else self._inner[event.inner],
                huge_page=1 << event.page_bits if source is FailureSource.HUGETLB else 0,
                inferred=self._inferred and not late,
                overridden=_overridden(event) if source is FailureSource.PAGE_MKWRITE else None,
                truncation=truncation,
            )
        )


def _recorder(facts: Fact) -> str:
    """Whose errno a loss at writeback has: mm/filemap.c, or fs/ext4/inode.c where nothing is recorded for the file."""
    return "ext4_writepages" if facts & Fact.UNRECORDED else "__filemap_set_wb_err"


def _signal(event: Any, name: bytes) -> Signal:
    """``name`` is that of the file that the instruction is from."""
    code = code_of(event.cause.error)
    sender = Actor(event.sender >> 32, event.sender & 0xFFFFFFFF, _text(event.sender_comm)) if code.sent else None
    module = f"{_text(name.removesuffix(bytes(1)))}+{event.ip_offset:#x}" if name else ""
    uid = event.sender_uid if sender else 0
    return Signal(code, _disposition(event, code), event.address, sender, uid, module)


def _overridden(event: Any) -> Disposition | None:
    """Return what the process would have done with a signal that was forced after the refusal was seen."""
    return Disposition.BLOCKED if event.blocked else Disposition.IGNORED if event.action == _SIG_IGN else None


def _disposition(event: Any, code: Code) -> Disposition:
    """Return what the action and the mask that the kernel had set when it generated the signal mean.

    A signal forced by a fault finds the default action if it was blocked or ignored (force_sig_info_to_task).
    """
    if event.result == _IGNORED or event.action == _SIG_IGN:
        return Disposition.IGNORED
    if event.blocked and code.sent:
        return Disposition.BLOCKED
    return Disposition.CAUGHT if event.action else Disposition.FATAL


def _command(event: Any) -> tuple[str, ...]:
    """Return the arguments; a title that was written over them (setproctitle) without what it is padded with."""
    raw = _command_line(event).rstrip(b"\0 ")
    return tuple(_text(part) for part in raw.split(b"\0")) if raw else ()


def _command_cut(event: Any) -> bool:
    """Whether there was more than there is room for: the last of the arguments has no end."""
    raw = _command_line(event)
    return len(raw) >= type(event).command.size - 1 and not raw.endswith((b"\0", b" "))


def _command_line(event: Any) -> bytes:
    return ct.string_at(ct.addressof(event) + type(event).command.offset, event.command_bytes)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
