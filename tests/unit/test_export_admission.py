"""The server under load: who asks too much is told so, who guesses passwords keeps nobody else waiting."""

from __future__ import annotations

import base64
import http.client
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

import bcrypt
import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from served import served
from test_export_server import eventually

from tracer.export.admission import Busy, Turns, network
from tracer.export.http.server import Server
from tracer.export.http.webconfig import Users, WebConfig

RIGHT, WRONG = "bob:builder", "bob:guess{}"
BOB = bcrypt.hashpw(b"builder", bcrypt.gensalt(4)).decode()


class Held(Collector):
    """One gauge, collected once it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily("one", "One.", 1)]

    def collect(self) -> Iterable[Metric]:
        self.go.wait(120)
        return self.describe()


def serving(collector: Collector, users: dict[str, str]) -> AbstractContextManager[Server]:
    return served(collector, config=WebConfig(users=Users(users)))


def scrape(server: Server, user: str = "", source: str = "127.0.0.1") -> tuple[int, str | None]:
    """Status, 0 for no answer, and Retry-After."""
    connection = http.client.HTTPConnection(
        server.address.host, server.address.port, timeout=120, source_address=(source, 0)
    )
    try:
        connection.request("GET", "/metrics", headers={"Authorization": f"Basic {encoded(user)}"} if user else {})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Retry-After")
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


def encoded(user: str) -> str:
    return base64.b64encode(user.encode()).decode()


@contextmanager
def threads(number: int, run: Callable[[int], object]) -> Iterator[None]:
    """So many of them; all have ended afterwards."""
    started = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        for thread in started:
            thread.join()


def test_a_scrape_too_many_is_told_when_to_come_again() -> None:
    collector = Held()
    answers: list[tuple[int, str | None]] = []
    with serving(collector, {}) as server, threads(50, lambda _: answers.append(scrape(server))):
        assert eventually(lambda: len(answers) == 50 - 32)
        assert answers == [(503, "1")] * 18
        collector.go.set()
    assert sorted(answers) == [(200, None)] * 32 + [(503, "1")] * 18


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Checks of wrong passwords take until this is set."""
    go = threading.Event()
    real = bcrypt.checkpw

    def check(password: bytes, hashed: bytes) -> bool:
        if password.startswith(b"guess"):
            go.wait(120)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", check)
    return go


def test_wrong_passwords_cost_no_right_scrape(checks: threading.Event) -> None:
    collector = Held()
    collector.go.set()
    with serving(collector, {"bob": BOB}) as server:
        assert scrape(server, RIGHT)[0] == 200
        guessed: list[tuple[int, str | None]] = []
        with threads(40, lambda index: guessed.append(scrape(server, WRONG.format(index)))):
            assert eventually(lambda: len(guessed) == 40 - 17)  # one is checked, 16 wait
            assert set(guessed) == {(503, "1")}
            assert [scrape(server, RIGHT)[0] for _ in range(20)] == [200] * 20
            late = threading.Thread(target=lambda: guessed.append(scrape(server, "bob:builder ", "127.0.0.2")))
            late.start()  # a client of another address finds a seat
            assert eventually(lambda: guessed.count((503, "1")) == 40 - 16)
            checks.set()
            late.join()
        assert sorted(guessed) == [(401, None)] * 17 + [(503, "1")] * 24


def test_the_same_wrong_password_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, hashed: bool(checked.append(password)))
    users = Users({"bob": BOB})
    assert not any(users.allows(f"Basic {encoded('bob:old')}") for _ in range(9))
    assert checked == [b"old"]


def test_no_time_tells_who_is_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = {name: BOB.replace("$04$", f"${cost:02}$") for name, cost in (("a", 4), ("b", 7), ("c", 12))}
    work: list[int] = []
    monkeypatch.setattr(bcrypt, "checkpw", lambda password, hashed: bool(work.append(1 << int(hashed[4:6]))))
    users = Users(hashes)
    for name in ("a", "b", "c", "nobody"):
        assert not users.allows(f"Basic {encoded(f'{name}:x')}")
        assert sum(work) == 1 << 12, name
        work.clear()


def test_a_hash_of_nobody_is_one_for_each_cost() -> None:
    users = Users({"a": BOB, "b": bcrypt.hashpw(b"x", bcrypt.gensalt(6)).decode()})
    assert users.allows(f"Basic {encoded('a:builder')}") and users.allows(f"Basic {encoded('b:x')}")
    assert not users.allows(f"Basic {encoded('c:x')}")


def test_clients_take_turns_however_many_of_one_wait() -> None:
    turns = Turns(seats=4)
    order: list[str] = []

    def wait(client: str) -> None:
        with turns.turn(client):
            order.append(client)

    waiting: list[threading.Thread] = []

    def joins(client: str) -> None:
        waiting.append(threading.Thread(target=wait, args=(client,)))
        waiting[-1].start()
        assert eventually(lambda: len(turns._waiting) == len(waiting))

    with turns.turn("guesser"):
        for client in ("guesser", "guesser", "guesser", "scraper"):
            joins(client)
        with pytest.raises(Busy), turns.turn("guesser"):
            pass
    for thread in waiting:
        thread.join()
    assert order == ["scraper", "guesser", "guesser", "guesser"]


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_client_is_a_network(address: str, same: str) -> None:
    assert network(address) == same
