"""The server over real sockets on loopback."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
from collections.abc import Iterable, Iterator

import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tracer.errors import Exit, MkwriteError, UsageError
from tracer.export.server import Address, Server, serve


class One(Collector):
    """One gauge."""

    def collect(self) -> Iterable[Metric]:
        """The gauge."""
        return [GaugeMetricFamily("one", "One.", 1)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server on a free port."""
    with serve(One(), Address("127.0.0.1", 0), "1.2<3") as running:
        yield running


def request(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    """Status, content type and body of an answer."""
    connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()
    finally:
        connection.close()


def test_metrics_are_served_in_the_text_format(server: Server) -> None:
    status, kind, body = request(server, "/metrics")
    assert status == 200 and kind.startswith("text/plain; version=")
    assert b"\none 1.0\n" in body


def test_metrics_are_compressed_on_request(server: Server) -> None:
    body = request(server, "/metrics", **{"Accept-Encoding": "gzip"})[2]
    assert b"one 1.0" in gzip.decompress(body)


def test_the_landing_page_names_the_rest_and_escapes(server: Server) -> None:
    status, kind, body = request(server, "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert b'href="/metrics"' in body and b"1.2&lt;3" in body and b"1.2<3" not in body


def test_healthy_is_healthy(server: Server) -> None:
    assert request(server, "/-/healthy") == (200, "text/plain; charset=utf-8", b"OK\n")


@pytest.mark.parametrize("path", ["/metric", "/metrics/", "/-/", "/%2e%2e/etc/passwd", "/favicon.ico"])
def test_anything_else_is_not_found(server: Server, path: str) -> None:
    assert request(server, path)[0] == 404


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_only_get_is_answered(server: Server, path: str, method: str) -> None:
    assert request(server, path, method)[0] == 405


def test_many_scrapes_at_once_are_all_served(server: Server) -> None:
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(request(server, "/metrics")[0])) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 50


def test_a_broken_connection_is_quiet_and_harmless(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    for garbage in (b"", b"\0\xff\n\n", b"GET /metrics HTTP/1.1\r\n", b"GET " + b"a" * 70_000 + b"\r\n\r\n"):
        client = socket.create_connection((server.address.host, server.address.port))
        # Closed with a reset, not in good order.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(garbage)
        client.close()
    assert request(server, "/-/healthy")[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text; version=abc", "\xff", "text/plain; version=", "*/*;q=x;;"]
)
def test_odd_headers_make_no_traceback(server: Server, capfd: pytest.CaptureFixture[str], accept: str) -> None:
    assert request(server, "/metrics", Accept=accept)[0] in (200, 500)
    assert request(server, "/metrics")[0] == 200
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_port_in_use_is_an_error_that_names_it(server: Server) -> None:
    with pytest.raises(MkwriteError) as caught:
        serve(One(), server.address, "1")
    assert caught.value.code == Exit.FAILED
    assert str(server.address) in caught.value.problem and "in use" in caught.value.problem


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid", "a" * 300])
def test_an_address_that_is_not_ours_is_an_error(host: str) -> None:
    with pytest.raises(MkwriteError):
        serve(One(), Address(host, 0), "1")


def test_a_closed_server_frees_its_port() -> None:
    with serve(One(), Address("127.0.0.1", 0), "1") as first:
        pass
    with serve(One(), first.address, "1") as second:
        assert request(second, "/-/healthy")[0] == 200


def test_ipv6_is_served() -> None:
    try:
        running = serve(One(), Address("::1", 0), "1")
    except MkwriteError:
        pytest.skip("no IPv6 loopback here")
    with running:
        assert request(running, "/-/healthy")[0] == 200
        assert str(running.address).startswith("[::1]:")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:9788", "127.0.0.1", 9788),
        ("localhost:0", "localhost", 0),
        ("[::]:9788", "::", 9788),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1),
        ("0.0.0.0:65535", "0.0.0.0", 65535),
    ],
)
def test_an_address_is_parsed_and_printed(text: str, host: str, port: int) -> None:
    assert Address.parse(text) == Address(host, port)
    assert str(Address.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", ":9788", "9788", "localhost", "a:", "a:65536", "a:-1", "::1:80", "a b:1", "[::1]", "a:1\n", "a:٣"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)
