"""The tracer's side of the record: counts and failures as they come, explained at once, and handed to the writer."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

from tracer.diagnosis.explainer import Explainer, Notified
from tracer.export.json.failures import notified_dict, repeated_dict
from tracer.model.failures import Burst, Event, Failure
from tracer.model.snapshot import Snapshot
from tracer.model.writeback import FileLosses
from tracer.record.feed import Feed
from tracer.record.minutes import Counted
from tracer.record.process import Writer
from tracer.record.reports import failure_frame

_log = logging.getLogger(__name__)

_MINUTE_NS: Final = 60_000_000_000
#: How often failures that are only counted are told.
_REPEATS_NS: Final = 10_000_000_000


class Traced(Protocol):
    """What the recorder needs of a session."""

    backend: Any

    def snapshot(self) -> Snapshot:
        """Cumulative counts."""

    def bursts(self) -> dict[Burst, int]:
        """Failures so far."""

    def has_ended(self, failure: Failure) -> bool:
        """Whether the failure's filesystem has ended."""

    def file_losses(self) -> FileLosses:
        """Files that lost writes at writeback."""


class Recorder:
    """Keeps a record while it is entered; a ``SnapshotSource`` that sees each snapshot that passes through it."""

    def __init__(self, session: Traced, writer: Writer, version: str) -> None:
        self._session = session
        self.writer = writer
        first = session.snapshot()
        self._counted = Counted(first)
        self.feed = Feed(writer.fd)
        self.feed.report({
            "kind": "first",
            "mkwrite": version,
            "kernel": os.uname().release,
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "host": platform.node(),
            "backend": str(session.backend),
        })  # fmt: skip
        self._minute = time.time_ns() // _MINUTE_NS
        self._due_ns = 0

    @cached_property
    def _explainer(self) -> Explainer:
        """Made when it is wanted: the process that opens files for it has the rights of that moment."""
        return Explainer(self._session.has_ended, every=True, losses=self._session.file_losses)

    def snapshot(self) -> Snapshot:
        """Return the session's snapshot, seen."""
        snapshot = self._session.snapshot()
        self._counted.see(snapshot)
        return snapshot

    def beat(self, events: Iterable[Event]) -> None:
        """Take in events, and do what is due."""
        self._explain(events)
        minute, now_ns = time.time_ns() // _MINUTE_NS, time.monotonic_ns()
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + _REPEATS_NS
            self._repeat()
        if minute != self._minute:
            self._minute = minute
            self.minute()
        self.feed.pump()
        self.writer.listen(self.feed)

    def minute(self) -> None:
        """Record what was counted since this was last done."""
        self.snapshot()
        self.feed.minute(self._counted.take())

    def end(self, final: Snapshot, events: Iterable[Event]) -> None:
        """Record what came last, and wait for the writer; a disk that stands still holds nobody up for long."""
        self._counted.see(final)
        self._explain(events)
        self._repeat()
        self.feed.minute(self._counted.take())
        self.feed.report({"kind": "end", "time_ns": time.time_ns(), "clean": True})
        self.writer.end(self.feed)

    def _explain(self, events: Iterable[Event]) -> None:
        for explained in self._explainer.explain(event for event in events if isinstance(event, Failure)):
            self.feed.report(failure_frame(explained))

    def _repeat(self) -> None:
        found = (*self._explainer.repeats(self._session.bursts()), *self._explainer.updates())
        for news in found:
            told = notified_dict(news) if isinstance(news, Notified) else repeated_dict(news)
            self.feed.report({**told, "time_ns": time.time_ns()})
