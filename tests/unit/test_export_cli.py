"""``mkwrite export`` as a process of its own, with a session of made-up counts."""

from __future__ import annotations

import http.client
import os
import pwd
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from test_export_server import eventually

from tests.live.answering import answering, holds_nothing

HERE = Path(__file__).parent
BOB = bcrypt.hashpw(b"builder", bcrypt.gensalt(4)).decode()
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


def request(address: str, path: str) -> tuple[int, str]:
    """Status and body of a page."""
    connection = http.client.HTTPConnection(address, timeout=120)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def get(address: str, path: str) -> str:
    """The body of a page that must be there."""
    code, body = request(address, path)
    assert code == 200
    return body


def status(address: str) -> int:
    """Whether metrics are to be had."""
    return request(address, "/metrics")[0]


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
        assert process.wait(120) == 0
        assert process.stderr is not None and process.stderr.read() == ""


def test_a_duration_ends_it() -> None:
    with running("-d", "500ms") as (process, _, _):
        assert process.wait(120) == 0


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


def test_sighup_takes_a_new_configuration_and_keeps_the_old_one_where_that_is_wrong(tmp_path: Path) -> None:
    config = tmp_path / "web.yml"
    config.write_text("")
    with running("--web.config.file", str(config)) as (process, address, _):
        assert process.stderr is not None
        assert "mkwrite_up 1.0" in get(address, "/metrics")
        config.write_text(f"basic_auth_users: {{bob: '{BOB}'}}")
        process.send_signal(signal.SIGHUP)
        assert process.stderr.readline() == "Reloaded.\n"
        assert status(address) == 401
        config.write_text("basic_auth_users: {bob: builder}")
        process.send_signal(signal.SIGHUP)
        assert process.stderr.readline().startswith("Not reloaded: ")
        assert status(address) == 401
        config.write_text("")
        process.send_signal(signal.SIGHUP)
        assert process.stderr.readline() == "Reloaded.\n"
        assert status(address) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def test_scrapes_during_reloads_are_all_answered(tmp_path: Path) -> None:
    config = tmp_path / "web.yml"
    config.write_text("")
    with running("--web.config.file", str(config)) as (process, address, _):
        for _ in range(20):
            process.send_signal(signal.SIGHUP)
            assert "mkwrite_up 1.0" in get(address, "/metrics")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def test_a_wrong_configuration_is_bad_usage_before_anything_is_attached(tmp_path: Path) -> None:
    result = run("--web.config.file", str(tmp_path / "nowhere"))
    assert result.returncode == 2
    assert "cannot be read: No such file" in result.stderr and "Traceback" not in result.stderr


def test_a_textfile_is_written_and_goes_with_the_exporter(tmp_path: Path) -> None:
    file = tmp_path / "mkwrite.prom"
    with subprocess.Popen([*COMMAND, "--textfile", str(tmp_path)], env=ENVIRONMENT, stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None and b"backend: " in process.stderr.readline()
            end = time.monotonic() + 120
            while not (file.exists() and file.stat().st_size) and time.monotonic() < end:
                time.sleep(0.05)
            text = file.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            process.kill()
    assert "mkwrite_up 1.0" in text and "process_" not in text
    assert not file.exists()


def test_once_into_a_textfile_leaves_it_there(tmp_path: Path) -> None:
    result = run("--once", "--textfile", str(tmp_path))
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert "mkwrite_up 1.0" in (tmp_path / "mkwrite.prom").read_text()


def test_a_textfile_may_be_served_too(tmp_path: Path) -> None:
    with running("--textfile", str(tmp_path)) as (_, address, _):
        assert "mkwrite_up 1.0" in get(address, "/metrics")


def test_the_service_manager_is_told_when_it_is_ready_and_when_it_stops() -> None:
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = f"mkwrite-test-{os.getpid()}"  # no file, whose directories nobody may search
    channel.bind(f"\0{name}")
    channel.settimeout(30)
    command = [*COMMAND, "--listen", "127.0.0.1:0"]
    environment = {**ENVIRONMENT, "NOTIFY_SOCKET": f"@{name}"}
    with channel, subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            assert channel.recv(100) == b"READY=1"
            process.send_signal(signal.SIGHUP)
            assert channel.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert channel.recv(100) == b"READY=1"
            process.send_signal(signal.SIGTERM)
            assert channel.recv(100) == b"STOPPING=1"
        finally:
            process.terminate()


@pytest.mark.parametrize(
    ("name", "why"), [("no-such\x1b", "There is no user 'no-such\\x1b'"), ("root", "'root' is root")]
)
def test_http_is_answered_by_no_user_that_there_is_not_and_not_by_root(name: str, why: str) -> None:
    result = run("--once", "--user", name)
    assert (result.returncode, result.stdout) == (2, "")
    assert why in result.stderr


def test_the_process_that_answers_is_the_user_of_the_option() -> None:
    with running("--user", "daemon") as (process, address, _):
        get(address, "/metrics")
        holds_nothing(
            answering(process.pid), pwd.getpwnam("daemon") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        )


def test_the_exporter_says_why_it_ends_with_the_process_that_answers(tmp_path: Path) -> None:
    with running("--textfile", str(tmp_path)) as (process, _, _):
        child = answering(process.pid)
        os.kill(int(child.name), signal.SIGKILL)
        assert process.wait(120) == 1
        assert process.stderr is not None
        said = process.stderr.read()
    assert "The process that answers HTTP is no more of use (killed by SIGKILL)." in said and "Traceback" not in said
    assert not (tmp_path / "mkwrite.prom").exists()


def test_the_process_that_answers_ends_with_the_exporter_however_that_ends() -> None:
    with running() as (process, address, _):
        child = os.pidfd_open(int(answering(process.pid).name))
        process.kill()
        assert select.select([child], [], [], 120) == ([child], [], [])
        os.close(child)
        host, _, port = address.rpartition(":")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)))


def test_no_signal_but_sigkill_ends_the_process_that_answers_before_the_exporter() -> None:
    with running() as (process, address, _):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(int(answering(process.pid).name), number)
        assert status(address) == 200


def test_a_process_that_answers_nothing_keeps_the_exporter_neither_from_its_work_nor_from_ending(
    tmp_path: Path,
) -> None:
    with running("--textfile", str(tmp_path)) as (process, _, _):
        child = int(answering(process.pid).name)
        os.kill(child, signal.SIGSTOP)
        try:
            assert eventually(lambda: (tmp_path / "mkwrite.prom").exists())
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(
    "arguments",
    [("--once", "--listen", "127.0.0.1:0"), ("--cgroups", "--by", "file"), ("--by", "pid"), ("--top", "0")],
)
def test_what_contradicts_itself_is_bad_usage(arguments: tuple[str, ...]) -> None:
    assert run(*arguments).returncode == 2


def test_per_process_is_a_label_of_its_own() -> None:
    result = run("--once", "--by", "process")
    assert 'process="other"' in result.stdout
    result = run("--once", "--cgroups")
    assert 'container_id=""' in result.stdout and 'pod_uid=""' in result.stdout
