"""What the tracer answers to the process that serves: metrics in their formats, the landing page, and JSON."""

from __future__ import annotations

import gzip
import logging
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from tracer.export.http.questions import Question
from tracer.text import printable

_log = logging.getLogger(__name__)

_OPENMETRICS: Final = choose_encoder("application/openmetrics-text")[0]
_COMPRESSION: Final = 5


class Answers:
    """Makes them of ``collectors``, with metrics of this process; ``shown`` makes those that are no metrics."""

    def __init__(self, collectors: Iterable[Collector], shown: Callable[[Question], str]) -> None:
        self._registry = _registry(collectors)
        ProcessCollector(registry=self._registry)
        self._shown = shown

    def __call__(self, question: Question) -> bytes:
        """Return the answer; b"" where it cannot be made, which is logged."""
        try:
            return self._made(question)
        except Exception as error:
            _log.warning("A request could not be answered: %s", printable(repr(error)))
            _log.debug("", exc_info=True)
            return b""

    def _made(self, question: Question) -> bytes:
        match question:
            case Question.TEXT:
                return generate_latest(self._registry)
            case Question.OPENMETRICS:
                return _OPENMETRICS(self._registry)
            case Question.TEXT_GZIP:
                return gzip.compress(self._made(Question.TEXT), _COMPRESSION)
            case Question.OPENMETRICS_GZIP:
                return gzip.compress(self._made(Question.OPENMETRICS), _COMPRESSION)
            case _:
                return self._shown(question).encode()


def exposition(*collectors: Collector) -> bytes:
    """Return the metrics in the text format, as a scrape would get them, without those of this process."""
    return generate_latest(_registry(collectors))


def _registry(collectors: Iterable[Collector]) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry
