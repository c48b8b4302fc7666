"""What the exporter answers: /metrics, the landing page, and whether it is healthy and ready."""

from __future__ import annotations

import gzip
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Final
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client.exposition import choose_encoder, generate_latest, gzip_accepted
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from tracer.export.admission import Busy, network
from tracer.export.http.landing import CONTENT_SECURITY_POLICY
from tracer.export.http.webconfig import Users
from tracer.text import printable

_log = logging.getLogger(__name__)

#: In the WSGI environment: takes the request for one that is served, False where there are too many of these.
ADMIT: Final = "mkwrite.admit"
#: When to come again.
_RETRY_AFTER_S: Final = "1"
_TEXT: Final = "text/plain; charset=utf-8"
#: No other site may show these answers or guess what they are, and none is a browser to keep.
_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


class Metrics:
    """The metrics as text. Who asks while others wait gets what they get: many at once cost no more than two."""

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._registry = CollectorRegistry()
        for collector in collectors:
            self._registry.register(collector)
        ProcessCollector(registry=self._registry)
        self._lock = threading.Lock()
        self._last: dict[tuple[str, bool], tuple[float, bytes]] = {}

    def answer(self, accept: str, encodings: str) -> tuple[bytes, list[tuple[str, str]]]:
        """Body and headers, for the values of Accept and Accept-Encoding."""
        asked = time.monotonic()
        try:
            encoder, kind = choose_encoder(accept)
        except ValueError:  # the client library does not take every version that can be asked for
            encoder, kind = choose_encoder("")
        zipped = gzip_accepted(encodings)
        with self._lock:
            begun, body = self._last.get((kind, zipped), (0.0, b""))
            if begun < asked:
                begun = time.monotonic()
                body = encoder(self._registry)
                body = gzip.compress(body, compresslevel=5) if zipped else body
                self._last = {(kind, zipped): (begun, body)}
        return body, [("Content-Type", kind), *([("Content-Encoding", "gzip")] if zipped else [])]


class Application:
    """A WSGI application. ``users`` may come in; ``page`` makes the landing page, ``ready`` tells whether it traces."""

    def __init__(
        self, collectors: Iterable[Collector], page: Callable[[], str], ready: Callable[[], bool], users: Users
    ) -> None:
        self._metrics = Metrics(collectors)
        self._page = page
        self._ready = ready
        self.users = users

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request; of HEAD, with the headers that GET has (RFC 9110, section 9.3.2)."""
        try:
            status, body, headers = self._answer(environ)
        except Busy:
            status, body = "503 Service Unavailable", b"There are too many requests at once.\n"
            headers = [("Content-Type", _TEXT), ("Retry-After", _RETRY_AFTER_S)]
        start_response(status, [*headers, *_HEADERS, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: WSGIEnvironment) -> tuple[str, bytes, list[tuple[str, str]]]:
        text = [("Content-Type", _TEXT)]
        client = network(environ.get("REMOTE_ADDR", ""))
        if not self.users.allows(environ.get("HTTP_AUTHORIZATION", ""), client):
            challenge = ("WWW-Authenticate", 'Basic realm="mkwrite", charset="UTF-8"')
            return "401 Unauthorized", b"A name and a password are needed.\n", [*text, challenge]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return "405 Method Not Allowed", b"Only GET and HEAD are answered here.\n", [*text, ("Allow", "GET, HEAD")]
        if environ["PATH_INFO"] == "/-/healthy":  # under load, too
            return "200 OK", b"OK\n", text
        if not environ.get(ADMIT, lambda: True)():
            raise Busy
        try:
            match environ["PATH_INFO"]:
                case "/metrics":
                    accept, encodings = (environ.get(f"HTTP_ACCEPT{name}", "") for name in ("", "_ENCODING"))
                    return "200 OK", *self._metrics.answer(accept, encodings)
                case "/":
                    return "200 OK", self._page().encode(), [("Content-Type", "text/html; charset=utf-8")]
                case "/-/ready":
                    if self._ready():
                        return "200 OK", b"OK\n", text
                    return "503 Service Unavailable", b"The counts cannot be read.\n", text
        except Exception as error:
            _log.warning("A request could not be answered: %s", printable(repr(error)))
            _log.debug("", exc_info=True)
            return "500 Internal Server Error", b"This request cannot be answered.\n", text
        return "404 Not Found", b"There is / and /metrics, /-/healthy and /-/ready.\n", text


def exposition(*collectors: Collector) -> bytes:
    """The metrics in the text format, as a scrape would get them, without those of this process."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)
