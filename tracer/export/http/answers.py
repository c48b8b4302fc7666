"""What the tracer answers to the process that serves: metrics in their formats, and the landing page."""

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
    """Makes them of ``collectors``, with metrics of this process, and of ``page``."""

    def __init__(self, collectors: Iterable[Collector], page: Callable[[], str]) -> None:
        self._registry = _registry(collectors)
        ProcessCollector(registry=self._registry)
        self._page = page

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
            case Question.PAGE:
                return self._page().encode()
            case Question.TEXT:
                return generate_latest(self._registry)
            case Question.OPENMETRICS:
                return _OPENMETRICS(self._registry)
            case Question.TEXT_GZIP:
                return gzip.compress(self._made(Question.TEXT), _COMPRESSION)
            case Question.OPENMETRICS_GZIP:
                return gzip.compress(self._made(Question.OPENMETRICS), _COMPRESSION)


def exposition(*collectors: Collector) -> bytes:
    """Return the metrics in the text format, as a scrape would get them, without those of this process."""
    return generate_latest(_registry(collectors))


def _registry(collectors: Iterable[Collector]) -> CollectorRegistry:
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return registry
