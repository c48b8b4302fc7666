"""A server in this process, which asks as that of the exporter does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client.registry import Collector

from tracer.export.http.answers import Answers
from tracer.export.http.application import Application
from tracer.export.http.questions import Question, answer_all, ask
from tracer.export.http.server import Address, Server, bound
from tracer.export.http.webconfig import WebConfig

ANYWHERE = Address("127.0.0.1", 0)


@contextmanager
def served(
    collector: Collector,
    page: Callable[[Question], str] = str,
    config: WebConfig | None = None,
    address: Address = ANYWHERE,
    ready: bool = True,
) -> Iterator[Server]:
    """A server of what the collector and the pages are."""
    config = config or WebConfig()
    tracer, asking = socket.socketpair()
    thread = threading.Thread(target=answer_all, args=(tracer, Answers([collector], page)))
    with tracer, bound(address) as listener:
        application = Application(partial(ask, asking), lambda: ready, config.users)
        thread.start()
        try:
            with asking, Server(listener, application, config) as server:
                yield server
        finally:
            asking.close()
            thread.join()
