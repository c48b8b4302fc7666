"""TLS and passwords, from the file to the socket."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

import bcrypt
import pytest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from served import served

from tests.certificates import MUTUAL, TLS, client, make_keys
from tracer.errors import Exit, MkwriteError
from tracer.export.http.server import Server
from tracer.export.http.webconfig import Users, WebConfig, WebFiles

ALICE = bcrypt.hashpw(b"wonder land:\xc3\xa9", bcrypt.gensalt(4)).decode()
#: As htpasswd writes it.
BOB = bcrypt.hashpw(b"builder", bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of them."""
    here = tmp_path_factory.mktemp("keys")
    make_keys(here)
    return here


def config(directory: Path, text: str) -> WebConfig:
    """What a file of this text means."""
    path = directory / "web.yml"
    path.write_text(text)
    return WebConfig.of(WebFiles(**json.loads(json.dumps(asdict(WebFiles.read(path))))))  # as it is sent


class One(Collector):
    """One gauge."""

    def collect(self) -> Iterable[Metric]:
        """The gauge."""
        return [GaugeMetricFamily("one", "One.", 1)]


def serving(web: WebConfig) -> AbstractContextManager[Server]:
    """A server of this configuration."""
    return served(One(), config=web)


def status(server: Server, context: ssl.SSLContext | None, user: str = "") -> int:
    """Status of a scrape."""
    connection = (
        http.client.HTTPSConnection(server.address.host, server.address.port, timeout=120, context=context)
        if context
        else http.client.HTTPConnection(server.address.host, server.address.port, timeout=120)
    )
    headers = {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()} if user else {}
    try:
        connection.request("GET", "/metrics", headers=headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def test_tls_is_served_and_plain_http_is_not(keys: Path) -> None:
    with serving(config(keys, TLS)) as server:
        assert status(server, client(keys)) == 200
        with pytest.raises((OSError, http.client.HTTPException)):
            status(server, None)
        assert status(server, client(keys)) == 200


def test_old_tls_is_refused(keys: Path) -> None:
    with serving(config(keys, TLS + "  min_version: TLS13\n")) as server:
        old = client(keys)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError):
            status(server, old)
        assert status(server, client(keys)) == 200


def test_a_client_must_show_a_certificate_of_the_authority(keys: Path) -> None:
    with serving(config(keys, MUTUAL)) as server:
        for wrong in (None, "thief"):
            with pytest.raises((OSError, http.client.HTTPException)):
                status(server, client(keys, wrong))
        assert status(server, client(keys, "client")) == 200
        assert status(server, client(keys, "guest")) == 200


def test_a_client_must_have_one_of_the_names(keys: Path) -> None:
    with serving(config(keys, MUTUAL + "  client_allowed_sans: [prometheus.example]\n")) as server:
        with pytest.raises((OSError, http.client.HTTPException)):
            status(server, client(keys, "guest"))
        assert status(server, client(keys, "client")) == 200


def test_a_handshake_that_never_comes_holds_nobody_up(keys: Path) -> None:
    with serving(config(keys, TLS)) as server:
        silent = [socket.create_connection((server.address.host, server.address.port)) for _ in range(80)]
        assert status(server, client(keys)) == 200
        for connection in silent:
            connection.close()


def test_only_users_are_served(tmp_path: Path) -> None:
    with serving(config(tmp_path, f"basic_auth_users:\n  alice: {ALICE}\n  bob: {BOB}\n")) as server:
        assert status(server, None) == 401
        assert status(server, None, "alice:wonder land:é") == 200
        assert status(server, None, "bob:builder") == 200
        for wrong in ("alice:builder", "bob:", ":", "bob", "nobody:builder", "bob:builder\0", "bob:" + "x" * 100):
            assert status(server, None, wrong) == 401
        assert status(server, None, "bob:builder") == 200


@pytest.mark.parametrize("header", ["", "Basic", "Basic ", "Basic !", "Basic YQ", "Bearer x", "basic Ym9i", "\xff"])
def test_odd_authorizations_are_refused(header: str) -> None:
    assert not Users({"bob": BOB}).allows(header)


def test_a_new_configuration_counts_from_the_next_connection(keys: Path) -> None:
    with serving(config(keys, TLS)) as server:
        server.configure(config(keys, MUTUAL))
        with pytest.raises((OSError, http.client.HTTPException)):
            status(server, client(keys))
        server.configure(WebConfig())
        assert status(server, None) == 200


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    web = config(tmp_path, "")
    assert web.tls is None and web.users.allows("")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[", "YAML"),
        ("\x00", "YAML"),
        ("- 1", "mapping"),
        ("tls: {}", "'tls'"),
        ("http_server_config: {http2: false}", "'http_server_config'"),
        ("tls_server_config: {cert_file: server.crt}", "key_file"),
        ("tls_server_config: {cert_file: nowhere, key_file: server.key}", "No such file"),
        ("tls_server_config: {cert_file: server.crt, key_file: client.key}", "mismatch"),
        ("tls_server_config: {cert_file: server.key, key_file: server.key}", "cannot be used"),
        ("tls_server_config: {cert_file: 1, key_file: server.key}", "string"),
        (TLS + "  cipher_suites: [X]\n", "'cipher_suites'"),
        (TLS + "  min_version: TLS10\n", "TLS10"),
        (TLS + "  min_version: TLS13\n  max_version: TLS12\n", "above"),
        (TLS + "  client_auth_type: RequireAnyClientCert\n", "RequireAnyClientCert"),
        (TLS + "  client_auth_type: RequireAndVerifyClientCert\n", "client_ca_file"),
        (TLS + "  client_ca_file: ca.crt\n", "client_auth_type"),
        (MUTUAL + "  client_allowed_sans: x\n", "list"),
        (TLS + "  client_allowed_sans: [x]\n", "RequireAndVerifyClientCert"),
        ("basic_auth_users: {bob: builder}", "bcrypt"),
        (f"basic_auth_users: {{'a:b': '{BOB}'}}", "bcrypt"),
        ("basic_auth_users: {1: x}", "mapping"),
        ("a: 2024-13-45", "not YAML"),
        ("!!timestamp x", "not YAML"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_reason(keys: Path, text: str, why: str) -> None:
    with pytest.raises(MkwriteError) as caught:
        config(keys, text)
    assert caught.value.code == Exit.USAGE
    assert why in caught.value.problem and "web.yml" in caught.value.problem
    assert "builder" not in caught.value.problem


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MkwriteError, match="No such file"):
        WebFiles.read(tmp_path / "web.yml")
