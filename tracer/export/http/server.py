"""An HTTP server that stays up and small, whoever asks, and however: slowly, endlessly, or all at once."""

from __future__ import annotations

import http.client
import io
import logging
import math
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from socketserver import BaseServer, ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.types import WSGIApplication, WSGIEnvironment

from tracer.errors import MkwriteError, UsageError
from tracer.export.admission import network
from tracer.export.http.application import ADMIT
from tracer.export.http.webconfig import WebConfig
from tracer.text import printable

_log = logging.getLogger(__name__)

#: A client that sends or takes nothing for so long is cut off,
_TIMEOUT_S: Final = 10.0
#: and so is one that has not sent its request, or taken the answer, after this time, however busy it looks.
_DEADLINE_S: Final = 30.0
#: Connections at once, with a thread each: packaging/mkwrite-exporter.service allows 128 (TasksMax).
_MOST_CONNECTIONS: Final = 96
#: Requests that are served at once; a Prometheus server makes one at a time.
_MOST_SERVED: Final = 32
_BACKLOG: Final = 128
#: Bytes of a request line with its headers.
_MOST_HEADER_BYTES: Final = 16 << 10


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


def bound(address: Address) -> socket.socket:
    """Return a socket that has ``address`` and does not listen yet. Raises MkwriteError if that cannot be had."""
    host, port = address.host, address.port
    listener = None
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
    except (OSError, UnicodeError) as error:
        if listener:
            listener.close()
        raise cannot_listen(address, getattr(error, "strerror", None) or str(error)) from error
    return listener


def cannot_listen(address: Address, reason: str) -> MkwriteError:
    """Return the error that says so."""
    return MkwriteError(
        f"Cannot listen on {printable(str(address))}: {reason}.",
        f"Choose another with --listen HOST:PORT; 'ss -ltnp sport = {address.port}' shows who has the port.",
    )


class Server:
    """Answers at a bound socket from a thread, from the making on until closed; ``address`` is where.

    ``config.users`` is the application's to ask. Raises OSError if it cannot listen.
    """

    def __init__(self, listener: socket.socket, application: WSGIApplication, config: WebConfig) -> None:
        listener.listen(_BACKLOG)
        host, port = listener.getsockname()[:2]
        self.address = Address(host, port)
        self._server = _Server(listener, config)
        self._server.set_app(application)
        self._thread = threading.Thread(target=self._server.serve_forever, name="mkwrite-http", daemon=True)
        self._thread.start()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def configure(self, config: WebConfig) -> None:
        """Serve connections that come from now on in this way; those that there are go on."""
        self._server.config = config

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@dataclass(slots=True)
class _Connection:
    """A connection: a handle of its own to cut it off, whose it is, since when, and whether its request is served."""

    handle: socket.socket
    client: str
    since: float
    admitted: bool = False


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a connection, of which there are so many at most; a broken one is a line in the log, no traceback."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, config: WebConfig) -> None:
        BaseServer.__init__(self, listener.getsockname(), _Handler)
        self.config = config
        self.socket = listener
        # Not by name: the resolver can take long.
        self.server_name, self.server_port = (str(listener.getsockname()[0]), int(listener.getsockname()[1]))
        self.setup_environ()
        self._connections: dict[Any, _Connection] = {}
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve it from a thread of its own. Where there are too many, one that is not being served must go."""
        with self._lock:
            if len(self._connections) >= _MOST_CONNECTIONS:
                _cut(self._connections.pop(self._dispensable()))
            self._connections[client_address] = _Connection(
                request.dup(), network(str(client_address[0])), time.monotonic()
            )
        super().process_request(request, client_address)

    def _dispensable(self) -> Any:
        """Of the client with the most connections that are not being served, the oldest: there are always some."""
        waiting = {who: one for who, one in self._connections.items() if not one.admitted}
        crowd = Counter(one.client for one in waiting.values())
        return min(waiting, key=lambda who: (-crowd[waiting[who].client], waiting[who].since))

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Greet and serve one connection."""
        try:
            request.settimeout(_TIMEOUT_S)
            if (config := self.config).tls is not None:
                request = config.tls.wrap_socket(request, server_side=True)
                if not config.admits(request.getpeercert()):
                    raise ssl.SSLError("the client's certificate has none of the names allowed")
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self.shutdown_request(request)
            with self._lock:
                connection = self._connections.pop(client_address, None)
            if connection:
                connection.handle.close()

    def admit(self, client_address: Any) -> bool:
        """Serve the request of this connection, who asks being known; False where so many are served already."""
        with self._lock:
            connection = self._connections.get(client_address)
            if connection is None or sum(one.admitted for one in self._connections.values()) >= _MOST_SERVED:
                return False
            connection.admitted = True
            connection.since = math.inf
            return True

    def answers(self, client_address: Any) -> None:
        """Note that the answer to this client begins, or goes on."""
        with self._lock:
            connection = self._connections.get(client_address)
            if connection and connection.since == math.inf:
                connection.since = time.monotonic()

    def service_actions(self) -> None:
        """Cut off clients that are over time; called twice a second."""
        latest = time.monotonic() - _DEADLINE_S
        with self._lock:
            for who in [who for who, c in self._connections.items() if c.since < latest]:
                _cut(self._connections.pop(who))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whatever a client did."""
        _log.debug("A connection from %s broke.", client_address, exc_info=True)


def _cut(connection: _Connection) -> None:
    """End a connection that a thread is busy with: that gets an end of file or a broken pipe."""
    with connection.handle:
        try:
            connection.handle.shutdown(socket.SHUT_RDWR)
        except OSError:  # it went by itself
            return


class _Limited:
    """Lines of a request, as long as they are not too much."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = _MOST_HEADER_BYTES

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._stream.readline(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("header")
        return line

    def close(self) -> None:
        self._stream.close()


class _Answer:
    """What is sent; ``begins`` is called before it is."""

    closed = False

    def __init__(self, stream: Any, begins: Callable[[], None]) -> None:
        self._stream = stream
        self._begins = begins

    def write(self, data: bytes) -> int:
        self._begins()
        return int(self._stream.write(data))

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()


class _Tracebacks(io.TextIOBase):
    """What the library has to say of an answer that could not be sent: over TLS, who goes away early causes that."""

    def write(self, text: str) -> int:
        _log.debug("%s", text.rstrip())
        return len(text)


class _Handler(WSGIRequestHandler):
    timeout = _TIMEOUT_S
    server_version = "mkwrite"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.rfile = _Limited(self.rfile)  # type: ignore[assignment]
        answers = partial(self.server.answers, self.client_address)  # type: ignore[attr-defined]
        self.wfile = _Answer(self.wfile, answers)  # type: ignore[assignment]

    def get_environ(self) -> WSGIEnvironment:
        server: _Server = self.server  # type: ignore[assignment]
        return {**super().get_environ(), ADMIT: partial(server.admit, self.client_address)}

    def get_stderr(self) -> Any:
        """Not the service's log."""
        return _Tracebacks()

    def address_string(self) -> str:
        """Return the address: a name would have to be asked for."""
        return str(self.client_address[0])

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing of requests."""
