"""What the exporter answers: /metrics, the landing page, the same as JSON, and whether it is healthy and ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final
from wsgiref.types import StartResponse, WSGIEnvironment

from tracer.export.admission import Busy, network
from tracer.export.http.questions import Question, Unanswered
from tracer.export.http.style import CONTENT_SECURITY_POLICY
from tracer.export.http.webconfig import Users

#: What the client library says of its formats, which this process does without.
PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
#: In the WSGI environment: takes the request for one that is served, False where there are too many of these.
ADMIT: Final = "mkwrite.admit"
#: When to come again.
_RETRY_AFTER_S: Final = "1"
_TEXT: Final = "text/plain; charset=utf-8"
_HTML: Final = "text/html; charset=utf-8"
_JSON: Final = "application/json"
_SHOWN: Final = {
    "/": (Question.PAGE, _HTML),
    "/api/failures": (Question.FAILURES, _JSON),
    "/api/stuck": (Question.STUCK, _JSON),
    "/api/risk": (Question.RISK, _JSON),
    "/api/calls": (Question.CALLS, _JSON),
}
_NOT_FOUND: Final = f"There is {', '.join(_SHOWN)}, /metrics, /-/healthy and /-/ready.\n"
#: How often a browser loads the page anew, unless it is asked for as ``/?still``: a report that is read stays open.
_REFRESH: Final = ("Refresh", "10")
#: No other site may show these answers or guess what they are, and none is a browser to keep.
_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)


class _Shared:
    """Asks one thing at a time. Who asks while others wait gets what they get: many at once cost no more than two."""

    def __init__(self, ask: Callable[[Question], bytes]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._last: dict[Question, tuple[float, bytes]] = {}

    def __call__(self, question: Question) -> bytes:
        asked = time.monotonic()
        with self._lock:
            begun, body = self._last.get(question, (0.0, b""))
            if begun < asked:
                begun = time.monotonic()
                body = self._ask(question)
                self._last = {question: (begun, body)}
        return body


class Application:
    """A WSGI application. ``users`` may come in; ``ask`` asks the tracer, ``ready`` tells whether that traces."""

    def __init__(self, ask: Callable[[Question], bytes], ready: Callable[[], bool], users: Users) -> None:
        self._ask = _Shared(ask)
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
        match environ["PATH_INFO"]:
            case "/metrics":
                return self._metrics(environ)
            case "/-/ready":
                if self._ready():
                    return "200 OK", b"OK\n", text
                return "503 Service Unavailable", b"The counts cannot be read.\n", text
            case path if path in _SHOWN:
                question, kind = _SHOWN[path]
                again = [_REFRESH] if kind == _HTML and environ.get("QUERY_STRING") != "still" else []
                return self._asked(question, [("Content-Type", kind), *again])
        return "404 Not Found", _NOT_FOUND.encode(), text

    def _metrics(self, environ: WSGIEnvironment) -> tuple[str, bytes, list[tuple[str, str]]]:
        openmetrics = _accepts(environ.get("HTTP_ACCEPT", ""), "application/openmetrics-text")
        zipped = _accepts(environ.get("HTTP_ACCEPT_ENCODING", ""), "gzip")
        headers = [("Content-Type", OPENMETRICS if openmetrics else PLAIN)]
        return self._asked(
            Question.metrics(openmetrics, zipped), [*headers, *([("Content-Encoding", "gzip")] if zipped else [])]
        )

    def _asked(self, question: Question, headers: list[tuple[str, str]]) -> tuple[str, bytes, list[tuple[str, str]]]:
        try:
            return "200 OK", self._ask(question), headers
        except (Unanswered, OSError):
            return "500 Internal Server Error", b"This request cannot be answered.\n", [("Content-Type", _TEXT)]


def _accepts(header: str, value: str) -> bool:
    return any(part.partition(";")[0].strip().lower() == value for part in header.split(","))
