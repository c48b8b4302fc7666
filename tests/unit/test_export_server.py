"""The server over real sockets on loopback."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from served import served

from tracer.errors import Exit, MkwriteError, UsageError
from tracer.export.http.server import Address, Server, bound


class One(Collector):
    """One gauge."""

    def collect(self) -> Iterable[Metric]:
        """The gauge."""
        return [GaugeMetricFamily("one", "One.", 1)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server on a free port."""
    with served(One(), lambda question: f"a {question.name.lower()}") as running:
        yield running


def eventually(test: Callable[[], bool]) -> bool:
    """Whether it comes true before long."""
    end = time.monotonic() + 120
    while not test() and time.monotonic() < end:
        time.sleep(0.05)
    return test()


def request(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, str, bytes]:
    """Status, content type and body of an answer."""
    connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=120)
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


def test_the_landing_page_is_served(server: Server) -> None:
    assert request(server, "/") == (200, "text/html; charset=utf-8", b"a page")
    for name in ("failures", "stuck", "risk", "calls"):
        assert request(server, f"/api/{name}") == (200, "application/json", f"a {name}".encode())


def test_the_landing_page_loads_itself_anew_unless_it_is_to_stay(server: Server) -> None:
    for path, often in {"/": "10", "/?still": None, "/api/failures": None}.items():
        connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=120)
        connection.request("GET", path)
        answer = connection.getresponse()
        assert (answer.status, answer.getheader("Refresh")) == (200, often)
        connection.close()


def test_every_answer_keeps_browsers_from_making_more_of_it(server: Server) -> None:
    for path in ("/", "/metrics", "/-/healthy", "/nowhere"):
        connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=120)
        connection.request("GET", path)
        headers = connection.getresponse().headers
        connection.close()
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


def test_the_process_tells_of_itself(server: Server) -> None:
    assert b"process_resident_memory_bytes " in request(server, "/metrics")[2]


def test_healthy_is_healthy(server: Server) -> None:
    assert request(server, "/-/healthy") == (200, "text/plain; charset=utf-8", b"OK\n")


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy", "/nowhere"])
def test_head_is_answered_with_the_headers_alone(server: Server, path: str) -> None:
    with socket.create_connection((server.address.host, server.address.port), timeout=120) as client:
        client.sendall(f"HEAD {path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"" and head.startswith(b"HTTP/1.0 404" if path == "/nowhere" else b"HTTP/1.0 200")
    assert b"Content-Length: 0" not in head


@pytest.mark.parametrize(
    "path", ["/metric", "/metrics/", "/-/", "/api", "/api/", "/api/nothing", "/%2e%2e/etc/passwd", "/favicon.ico"]
)
def test_anything_else_is_not_found(server: Server, path: str) -> None:
    assert request(server, path)[0] == 404


@pytest.mark.parametrize("path", ["/", "/metrics", "/-/healthy"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_only_get_and_head_are_answered(server: Server, path: str, method: str) -> None:
    assert request(server, path, method)[0] == 405


def raw(server: Server, method: str, path: str) -> tuple[list[bytes], bytes]:
    """The lines of an answer's head, and whatever follows them."""
    with socket.create_connection((server.address.host, server.address.port), timeout=120) as client:
        client.sendall(f"{method} {path} HTTP/1.0\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return [line for line in head.split(b"\r\n") if not line.startswith(b"Date:")], body


@pytest.mark.parametrize("path", ["/", "/-/healthy", "/-/ready", "/nothing"])
def test_head_has_the_headers_of_get_and_no_body(server: Server, path: str) -> None:
    head, body = raw(server, "GET", path)
    assert body
    assert raw(server, "HEAD", path) == (head, b"")
    assert raw(server, "HEAD", "/metrics")[1] == b""


class Slow(One):
    """Takes a while, and counts how often it was asked."""

    asked = 0

    def describe(self) -> Iterable[Metric]:
        """The gauge, without being asked."""
        return super().collect()

    def collect(self) -> Iterable[Metric]:
        """The gauge."""
        self.asked += 1
        time.sleep(0.2)
        return super().collect()


def outcomes(server: Server, number: int) -> list[int]:
    """Status of so many scrapes at the same time; 0 for those that were refused."""
    statuses: list[int] = []

    def scrape() -> None:
        try:
            statuses.append(request(server, "/metrics")[0])
        except (OSError, http.client.HTTPException):
            statuses.append(0)

    threads = [threading.Thread(target=scrape) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def test_who_waits_together_is_served_together() -> None:
    collector = Slow()
    with served(collector) as running:
        assert outcomes(running, 20) == [200] * 20
    assert collector.asked <= 10  # 1, on a machine on which all of them come within what that takes


def test_too_many_scrapes_at_once_are_served_or_refused_and_it_stays_up() -> None:
    with served(Slow()) as running:
        threads = threading.active_count()
        statuses = outcomes(running, 200)
        assert set(statuses) <= {0, 200, 503} and statuses.count(200) >= 32
        assert request(running, "/metrics")[0] == 200
        assert eventually(lambda: threading.active_count() <= threads)


def test_who_dawdles_makes_room_for_who_asks(server: Server) -> None:
    address = (server.address.host, server.address.port)
    dawdlers = [socket.create_connection(address) for _ in range(200)]
    for dawdler in dawdlers:
        dawdler.sendall(b"GET /metrics HT")
    for _ in range(3):
        assert request(server, "/metrics")[0] == 200
    cut = 0
    for dawdler in dawdlers:
        dawdler.setblocking(False)
        with contextlib.suppress(BlockingIOError), contextlib.suppress(ConnectionError):
            cut += dawdler.recv(1) == b""
        dawdler.close()
    assert cut >= 104


def test_who_is_not_done_in_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.export.http.server._DEADLINE_S", 0.5)
    with served(One()) as running:
        dawdler = socket.create_connection((running.address.host, running.address.port), timeout=120)
        with dawdler, pytest.raises(OSError):  # one byte now and then, for ever
            while True:
                dawdler.sendall(b"x")
                time.sleep(0.05)


def test_who_does_not_take_the_answer_in_time_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.export.http.server._DEADLINE_S", 0.5)
    with served(One(), lambda question: "x" * (64 << 20)) as running:
        slow = socket.create_connection((running.address.host, running.address.port), timeout=120)
        with slow:
            slow.sendall(b"GET / HTTP/1.0\r\n\r\n")
            took = 0
            with contextlib.suppress(OSError):
                while some := slow.recv(1 << 10):
                    took += len(some)
                    time.sleep(0.01)
    assert 0 < took < 64 << 20


def test_what_takes_longer_to_count_than_a_client_may_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.export.http.server._DEADLINE_S", 0.1)

    class Patient(Slow):
        def collect(self) -> Iterable[Metric]:
            time.sleep(2)  # the server looks twice a second for who is over time
            return super().collect()

    with served(Patient()) as running:
        assert request(running, "/metrics")[0] == 200


@pytest.mark.parametrize(
    "header", ["X: " + "a" * 40_000, "\r\n".join(f"X{number}: {'b' * 900}" for number in range(90))]
)
def test_oversize_requests_are_refused(server: Server, header: str) -> None:
    with socket.create_connection((server.address.host, server.address.port), timeout=120) as client:
        answer = b""
        with contextlib.suppress(ConnectionError):
            client.sendall(f"GET / HTTP/1.0\r\n{header}\r\n\r\n".encode())
            while chunk := client.recv(4096):
                answer += chunk
    assert b" 200 " not in answer
    assert request(server, "/-/healthy")[0] == 200


def test_a_failing_page_is_an_error_without_a_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise ZeroDivisionError

    with served(One(), broken, ready=False) as running:
        assert request(running, "/")[0] == 500
        assert request(running, "/-/ready")[0] == 503
        assert request(running, "/-/healthy")[0] == 200
    assert "Traceback" not in "".join(capfd.readouterr())


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
        bound(server.address)
    assert caught.value.code == Exit.FAILED
    assert str(server.address) in caught.value.problem and "in use" in caught.value.problem


@pytest.mark.parametrize("host", ["203.0.113.1", "no-such-host.invalid", "a" * 300])
def test_an_address_that_is_not_ours_is_an_error(host: str) -> None:
    with pytest.raises(MkwriteError):
        bound(Address(host, 0))


def test_a_closed_server_frees_its_port() -> None:
    with served(One()) as first:
        pass
    with served(One(), address=first.address) as second:
        assert request(second, "/-/healthy")[0] == 200


def test_ipv6_is_served() -> None:
    try:
        bound(Address("::1", 0)).close()
    except MkwriteError:
        pytest.skip("no IPv6 loopback here")
    with served(One(), address=Address("::1", 0)) as running:
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
