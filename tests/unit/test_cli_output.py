"""Where the output goes: files, pipes that nobody reads, full disks."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from command_line import FAILURES_ONLY, PROGRAM, TRACING, environment, finish, invoke, start

pytestmark = pytest.mark.usefixtures("fake_sessions")


def test_count_writes_to_a_file(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for _ in range(2):  # what was there is overwritten
        assert invoke("count", "-d", "1ms", "-o", str(output)).stdout == ""
        assert output.read_text().count("101 calls") == 1
    # what is refused leaves it alone
    assert finish(start("count", "-o", str(output), "--", "no-such-command"))[0] == 127
    assert "101 calls" in output.read_text()


@pytest.mark.parametrize("command", ["trace", "trace --json", "sigbus --json", "stuck"])
def test_what_waits_for_events_ends_when_nobody_reads_any_more(command: str) -> None:
    process = start(*command.split())
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=120) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("output", ["-", "/dev/stdout"])
def test_count_keeps_what_else_is_in_the_standard_output(tmp_path: Path, output: str) -> None:
    log = tmp_path / "log"
    log.write_text("kept\n")
    with log.open("a") as stream:
        line = (*PROGRAM, "count", "-o", output, "--", "echo", "said")
        subprocess.run(line, env=environment(), stdout=stream, check=True)
    first, second, *_ = log.read_text().splitlines()
    assert (first, second) == ("kept", "said")
    assert "101 calls" in log.read_text()


def test_count_writes_to_what_is_no_file() -> None:
    assert "101 calls" in finish(start("count", "-d", "1ms", "-o", "/dev/stdout"))[1]


@pytest.mark.parametrize(
    "arguments", [["trace"], ["trace", "--json"], ["top", "-i", "0.1"], ["top", "--json", "-i", "0.1"]]
)
def test_a_closed_pipe_ends_quietly(arguments: list[str]) -> None:
    process = start(*arguments)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(120) == 128 + signal.SIGPIPE
    assert errors == (FAILURES_ONLY if arguments[0] == "trace" else TRACING)


@pytest.mark.parametrize(
    "arguments", [["--help"], ["completion", "bash"], ["hist", "-d", "1ms"], ["count", "-d", "1ms"]]
)
def test_a_pipe_that_was_closed_before_is_quiet_too(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, *arguments], env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    said = (
        ""
        if "completion" in arguments or "--help" in arguments
        else FAILURES_ONLY
        if arguments[0] == "trace"
        else TRACING
    )
    assert (done.returncode, done.stderr.decode()) == (128 + signal.SIGPIPE, said)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    "arguments", [["--help"], ["hist", "-d", "1ms"], ["trace", "-n", "1"], ["count", "--json", "-d", "1ms"]]
)
def test_a_full_disk_is_told_in_one_sentence(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env=environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
        )
    assert done.returncode == 1
    errors = done.stderr.removeprefix(TRACING).removeprefix(FAILURES_ONLY)
    assert errors.startswith("mkwrite: The output cannot be written: No space left on device.\n")
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_closed_output_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *PROGRAM, "hist", "-d", "1ms"], env=environment(), timeout=120
    )
    assert done.returncode == 0
