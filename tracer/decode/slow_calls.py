"""Slow calls as they come, with their names; and the names that come for what is counted."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Iterable, Iterator
from typing import Any

from tracer.decode.names import Naming, path_of
from tracer.model.calls import CallEvent
from tracer.probes.abi import Sent
from tracer.probes.records import RawSeries


class CallReader:
    """Makes events of the kernel's records. ``kind`` is the ctypes struct event of bpf/event.h."""

    def __init__(self, kind: Any, naming: Naming) -> None:
        self._kind = kind
        self._naming = naming

    def read(self, records: Iterable[bytes]) -> Iterator[CallEvent]:
        """Yield the slow calls among the records."""
        kind = self._kind
        for record in records:
            event = kind.from_buffer_copy(record.ljust(ct.sizeof(kind), b"\0"))
            path = record[kind.path.offset : kind.path.offset + event.path_bytes]
            if event.reason & Sent.NAMED:
                series, file = event.series, path_of(path, bool(event.deleted), bool(event.cut))
                filesystem = RawSeries(series.handler, series.who, series.dev, series.kind).filesystem
                self._naming.name_series(filesystem, series.who, event.comm, file)
            if event.reason & Sent.SLOW:
                yield self._naming.event(event, path_of(path, False, bool(event.cut)))
