"""Failures as they come: refused faults and SIGBUS, each joined with what the kernel knows of the other.

>>> with Failures(Filters()) as failures:  # doctest: +SKIP
...     for failure in failures.wait(1.0):
...         print(failure.comm, failure.file, failure.errno_name)
"""

from __future__ import annotations

import ctypes as ct
import time
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Any, Final

from tracer.failure import Actor, Code, Disposition, Failure, Signal, Source, Truncation
from tracer.host.filters import check
from tracer.host.mounts import Mounts, MountTable
from tracer.model import Backend, Filters, Hook, Initiator, Path
from tracer.naming import path_of
from tracer.probes.failures import Burst, FailureTracer, symbols
from tracer.probes.inner import names

#: A refusal's signal follows it within microseconds; where none comes, the task was killed meanwhile.
_SIGNAL_WITHIN_S: Final = 0.5
_SOURCES: Final = tuple(Source)
_CODES: Final = {
    1: Code.ADRALN, 2: Code.ADRERR, 3: Code.OBJERR, 4: Code.MCEERR_AR, 5: Code.MCEERR_AO,
    0: Code.USER, -1: Code.QUEUE, -6: Code.TKILL, 0x80: Code.KERNEL,
}  # fmt: skip
_IGNORED: Final = 1  # enum trace_signal_generate_result, include/trace/events/signal.h
# FAULT_FLAG_*, include/linux/mm_types.h
_WRITE, _USER, _INTERRUPTIBLE = 0x1, 0x40, 0x200
# VM_FAULT_SIGBUS and VM_FAULT_HWPOISON*: what a signal follows
_SIGNALLED: Final = 0x32
# include/linux/fs.h
_SB_RDONLY, _S_IMMUTABLE, _S_SWAPFILE = 0x1, 0x8, 0x100


class Failures:
    """Watches from construction to ``close``."""

    def __init__(self, filters: Filters = Filters(), backend: Backend | None = None) -> None:  # noqa: B008  # frozen
        """Attach. Raises UsageError for filters that name what does not exist, MkwriteError for what hinders."""
        mounts = Mounts.read()
        self._symbols = symbols()
        check(filters, mounts, self._symbols.handlers().keys())
        self._mounts = MountTable()
        try:
            self._tracer = FailureTracer(filters, backend, self._symbols, mounts)
        except BaseException:
            self._mounts.close()
            raise
        self._inner = ("", *names())
        self._epoch_ns = time.time_ns() - time.monotonic_ns()
        #: Refusals whose signal is still to come, by the time that names them.
        self._pending: dict[int, Failure] = {}

    def __enter__(self) -> Failures:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def backend(self) -> Backend:
        """How most hooks attached."""
        return self._tracer.backend

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """What is attached, and what could not be."""
        return self._tracer.hooks

    def lost(self) -> dict[str, int]:
        """Losses by kind."""
        return self._tracer.lost()

    def seen(self) -> dict[Burst, int]:
        """How many failures of each kind there were, those included that did not come one by one."""
        return self._tracer.seen()

    def wait(self, timeout_s: float) -> list[Failure]:
        """Failures that have come, oldest first; waits up to ``timeout_s`` for the first."""
        self._tracer.follow_modules()
        if not self._pending:
            self._tracer.events.wait(timeout_s)
        found = list(self._take())
        if self._pending and not found:
            # A signal on its way: it is not worth the whole timeout.
            self._tracer.events.wait(min(timeout_s, _SIGNAL_WITHIN_S))
            found += self._take()
        return found

    def finish(self) -> list[Failure]:
        """Detach the hooks; what had come before, whole or not."""
        self._tracer.detach()
        return [*self._take(), *self._expired(0)]

    def close(self) -> None:
        """End; nothing stays in the kernel."""
        self._tracer.close()
        self._mounts.close()

    def _take(self) -> Iterator[Failure]:
        kind = self._tracer.events.type
        for record in self._tracer.events.take():
            event = kind.from_buffer_copy(record.ljust(ct.sizeof(kind), b"\0"))
            if _SOURCES[event.source] is Source.SIGNAL:
                yield self._signal(event)
                continue
            path = record[kind.path.offset : kind.path.offset + event.path_bytes]
            failure = self._refusal(event, path)
            if event.flags & _USER and event.vm_fault & _SIGNALLED:
                self._pending[event.time_ns] = failure
            else:
                yield failure
        yield from self._expired(time.monotonic_ns() - int(_SIGNAL_WITHIN_S * 1e9))

    def _expired(self, before_ns: int) -> Iterator[Failure]:
        for named in [named for named in self._pending if named < before_ns or not before_ns]:
            yield self._pending.pop(named)

    def _signal(self, event: Any) -> Failure:
        code = _CODES.get(ct.c_int(event.code).value, Code.OTHER)
        sender = Actor(event.sender >> 32, event.sender & 0xFFFFFFFF, _text(event.sender_comm)) if code.sent else None
        signal = Signal(code, _disposition(event, code), event.address, sender, event.sender_uid if sender else 0)
        if (refusal := self._pending.pop(event.refusal, None)) is not None:
            return replace(refusal, signal=signal, address=signal.address or refusal.address)
        return Failure(
            time_ns=event.time_ns + self._epoch_ns,
            source=Source.SIGNAL,
            pid=event.id >> 32,
            tid=event.id & 0xFFFFFFFF,
            uid=event.uid,
            comm=_text(event.comm),
            cgroup_id=event.cgroup,
            command=_command(event),
            address=event.address,
            ordinal=event.seen,
            kernel_error=event.error,
            signal=signal,
        )

    def _refusal(self, event: Any, path: bytes) -> Failure:
        fstype, mountpoint = self._mounts.lookup(event.dev)
        truncation = None
        if event.truncated_ns:
            by = Actor(event.truncated_by >> 32, event.truncated_by & 0xFFFFFFFF, _text(event.truncated_comm))
            truncation = Truncation(event.truncated_ns + self._epoch_ns, event.truncated_to, by)
        if event.flags & _USER:
            initiator = Initiator.USER
        else:
            initiator = Initiator.KERNEL if event.flags & _INTERRUPTIBLE else Initiator.REMOTE
        return Failure(
            time_ns=event.time_ns + self._epoch_ns,
            source=_SOURCES[event.source],
            pid=event.id >> 32,
            tid=event.id & 0xFFFFFFFF,
            uid=event.uid,
            comm=_text(event.comm),
            cgroup_id=event.cgroup,
            command=_command(event),
            fstype=_text(event.fstype) or fstype,
            mountpoint=mountpoint,
            dev=event.dev,
            inode=event.inode,
            file=path_of(path, False, bool(event.cut)),
            deleted=bool(event.deleted),
            size=event.size,
            allocated=event.blocks * 512,
            read_only=bool(event.superblock_flags & _SB_RDONLY),
            immutable=bool(event.inode_flags & _S_IMMUTABLE),
            swapfile=bool(event.inode_flags & _S_SWAPFILE),
            handler=self._symbols.name_of(event.handler) if event.handler else "",
            path=Path.WRITE_PROTECT if event.write_protect else Path.FIRST_WRITE,
            write=bool(event.flags & _WRITE),
            initiator=initiator,
            offset=event.pgoff * 4096,
            address=event.address,
            ip=event.ip,
            syscall=ct.c_int(event.syscall).value,
            latency_ns=event.latency_ns,
            vm_fault=event.vm_fault,
            errno=event.error,
            errno_from=self._inner[event.inner],
            ordinal=event.seen,
            kernel_error=event.error,
            truncation=truncation,
        )


def _disposition(event: Any, code: Code) -> Disposition:
    """What the action and the mask that the kernel had set when it generated the signal mean.

    A signal forced by a fault finds the default action if it was blocked or ignored (force_sig_info_to_task).
    """
    if event.result == _IGNORED or event.action == 1:
        return Disposition.IGNORED
    if event.blocked and code.sent:
        return Disposition.BLOCKED
    return Disposition.CAUGHT if event.action else Disposition.FATAL


def _command(event: Any) -> tuple[str, ...]:
    raw = ct.string_at(ct.addressof(event) + type(event).command.offset, event.command_bytes)
    return tuple(_text(part) for part in raw.removesuffix(b"\0").split(b"\0")) if raw else ()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


__all__ = ["Failures"]
