"""The exporter at work: reads the counts in time, serves them, writes them to a file, takes a new configuration."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final

from prometheus_client.registry import Collector

from tracer.errors import UsageError
from tracer.export.http.answers import Answers, exposition
from tracer.export.http.process import HttpProcess
from tracer.export.http.shown import Shown
from tracer.export.http.webconfig import WebFiles
from tracer.export.prometheus.collector import MkwriteCollector
from tracer.export.prometheus.textfile import Textfile
from tracer.host.mounts import MountChanges
from tracer.host.systemd import notify
from tracer.model.failures import Event
from tracer.text import printable

_log = logging.getLogger(__name__)

#: How often the counts are read when nobody asks: for the page, for the file, and lest a label comes too late.
READ_EVERY_NS: Final = 10_000_000_000


class Daemon:
    """Works while it is entered, in ``beat``, which is to be called several times a second."""

    def __init__(
        self,
        collector: MkwriteCollector,
        shown: Shown | None = None,
        http: HttpProcess | None = None,
        load: Callable[[], WebFiles] = WebFiles,
        file: Textfile | None = None,
        more: Sequence[Collector] = (),
    ) -> None:
        """``http`` answers, of ``shown`` besides metrics; ``load`` reads the web configuration, or raises MkwriteError.

        ``more`` is exported, too.
        """
        self._http = http
        self._load = load
        self._file = file
        self._collector = collector
        self._collectors = (collector, *more)
        self._shown = shown
        self._due_ns = 0
        self._mount_changes = MountChanges()

    def __enter__(self) -> Daemon:
        if self._http and self._shown:
            self._http.serve(Answers(self._collectors, self._shown.answer))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        notify("STOPPING=1")
        if self._http:
            self._http.close()
        if self._file:
            self._file.remove()
        self._mount_changes.close()

    def beat(self, events: Iterable[Event]) -> None:
        """Take in events, and do what is due. Raises MkwriteError when the process that answers has ended."""
        if self._shown:
            self._shown.note(events)
        if self._http:
            self._http.check()
        now = time.monotonic_ns()
        if now >= self._due_ns:
            first = not self._due_ns
            self._due_ns = now + READ_EVERY_NS
            snapshot = self._collector.read()
            if self._shown:
                self._shown.add(snapshot)
            if self._http:
                self._http.tell(snapshot is not None)
            if self._file:
                self._file.renew(exposition(*self._collectors))
            notify("READY=1" if first else "WATCHDOG=1")
        elif self._mount_changes:
            # What a filesystem did until it was unmounted is booked under its name, before another has the device.
            self._collector.read()

    def reload(self) -> None:
        """Read the web configuration again; one that cannot be used is logged, and the old one stays."""
        notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            files = self._load()
            if self._http:
                self._http.configure(files)
        except UsageError as error:
            _log.warning("Not reloaded: %s", printable(error.problem))
        else:
            _log.warning("Reloaded.")
        notify("READY=1")
