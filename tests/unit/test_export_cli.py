"""``mkwrite export`` as a process of its own, with a session of made-up counts."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

HERE = Path(__file__).parent
COMMAND = [sys.executable, str(HERE / "fake_session.py"), "export"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{HERE.parents[1]}:{HERE}"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(
        [*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def running(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The command on a free port, its host:port, and the lines that it said on starting."""
    command = [*COMMAND, "--listen", "127.0.0.1:0", *arguments]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = [process.stderr.readline() for _ in range(2)]
            match = re.search(r"http://(\S+)/metrics", said[0])
            assert match, said
            yield process, match[1], said
        finally:
            process.kill()


def get(address: str, path: str) -> str:
    """The body of a page that must be there."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode()
    finally:
        connection.close()


def test_once_prints_the_metrics_and_ends() -> None:
    result = run("--once", "-d", "300ms")
    assert (result.returncode, result.stderr) == (0, "")
    values = {sample.name: sample.value for family in parse(result.stdout) for sample in family.samples}
    assert values["mkwrite_up"] == 1
    assert values["mkwrite_call_latency_seconds_count"] == 101


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_says_where_and_ends_clean_on_a_signal(number: signal.Signals) -> None:
    with running() as (process, address, said):
        assert "backend: " in said[1]
        first, second = (get(address, "/metrics") for _ in range(2))
        assert "mkwrite_calls_total{" in first and first != second
        assert "mkwrite" in get(address, "/")
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr is not None and process.stderr.read() == ""


def test_a_duration_ends_it() -> None:
    with running("-d", "500ms") as (process, _, _):
        assert process.wait(30) == 0


def test_a_port_in_use_is_two_sentences_and_no_traceback() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert result.returncode == 1
    assert "Address already in use" in result.stderr and "--listen" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_address_that_is_none_is_bad_usage() -> None:
    result = run("--listen", ":9788")
    assert result.returncode == 2
    assert "HOST:PORT" in result.stderr
