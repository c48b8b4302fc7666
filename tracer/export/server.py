"""The exporter's HTTP end: /metrics, /-/healthy and a page that names them."""

from __future__ import annotations

import html
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client.exposition import make_wsgi_app
from prometheus_client.registry import Collector, CollectorRegistry

from tracer.errors import MkwriteError, UsageError
from tracer.text import printable

_log = logging.getLogger(__name__)

#: A client that sends or takes nothing for so many seconds is cut off.
_TIMEOUT_S: Final = 10.0

_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>mkwrite</title></head>
<body><h1>mkwrite</h1><p>Live tracer of the Linux kernel's page_mkwrite, version {version}.</p>
<ul><li><a href="/metrics">/metrics</a>: metrics for Prometheus</li>
<li><a href="/-/healthy">/-/healthy</a>: whether this server answers</li></ul></body></html>
"""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. Port 0 takes any free one."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """``HOST:PORT``, an IPv6 host in brackets. Raises UsageError, also when the host is left out.

        Other exporters take ``:9788`` for every address of the machine; here that has to be said.
        """
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", text)
        if match is None or int(match[3]) > 65535:
            raise UsageError(
                f"'{printable(text)}' is not an address to listen on.",
                "Write HOST:PORT, such as 127.0.0.1:9788, or [::]:9788 for every address of this machine.",
            )
        return cls(match[1] or match[2], int(match[3]))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Server:
    """A running server; ``address`` is where it listens."""

    def __init__(self, server: WSGIServer, address: Address) -> None:
        self.address = address
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, name="mkwrite-http", daemon=True)
        self._thread.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(collector: Collector, address: Address, version: str) -> Server:
    """Answer at ``address`` from a thread until closed; raises MkwriteError if that is not possible."""
    registry = CollectorRegistry()
    registry.register(collector)
    host, port = address.host, address.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        server = make_server(
            host,
            port,
            _application(make_wsgi_app(registry), version),
            server_class=_Server6 if family == socket.AF_INET6 else _Server,
            handler_class=_Handler,
        )
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MkwriteError(
            f"Cannot listen on {printable(str(address))}: {reason}.",
            f"Choose another with --listen HOST:PORT; 'ss -ltnp sport = {port}' shows who has the port.",
        ) from error
    return Server(server, Address(host, server.server_port))


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a request; a broken connection is a line in the log and no traceback."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("A connection from %s broke.", client_address, exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged."""


def _application(metrics: Callable[..., Iterable[bytes]], version: str) -> WSGIApplication:
    page = _PAGE.format(version=html.escape(version)).encode()

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        status, kind, body = "200 OK", "text/plain", b"OK\n"
        if environ["REQUEST_METHOD"] != "GET":
            status, body = "405 Method Not Allowed", b"Only GET is answered here.\n"
        elif path == "/metrics":
            try:
                return metrics(environ, start_response)
            except Exception as error:  # the client library does not take every header that can be sent
                _log.warning("A scrape failed: %s", printable(repr(error)))
                status, body = "500 Internal Server Error", b"This request cannot be answered.\n"
        elif path == "/":
            kind, body = "text/html", page
        elif path != "/-/healthy":
            status, body = "404 Not Found", b"There is / and /metrics and /-/healthy.\n"
        headers = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]

    return application
