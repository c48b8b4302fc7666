"""How the command line ends: exit codes, signals, errors."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from command_line import finish, start


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 37"], 37),
        (["sh", "-c", "kill -BUS $$"], 128 + signal.SIGBUS),
        (["/no/such/command"], 127),
        (["no-such-command"], 127),
        (["/"], 126),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_code_of_count_is_that_of_its_command(command: Sequence[str], code: int) -> None:
    returned, out, err = finish(start("count", "--", *command))
    assert returned == code
    assert ("101 calls" in out) == (code not in (126, 127))
    assert ("mkwrite: There is no command" in err) == (code == 127)


def test_a_command_that_cannot_be_run_has_exit_code_126(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"\x7fELF nothing")
    (tmp_path / "program").chmod(0o755)
    code, _, err = finish(start("count", str(tmp_path / "program")))
    assert code == 126
    assert "cannot be run: Exec format error." in err


def test_options_of_the_command_are_its_own_and_it_is_run_without_a_shell() -> None:
    code, out, _ = finish(start("count", "--json", "printf", "%s-%s\\n", "--json", "$HOME;|"))
    assert code == 0
    assert out.splitlines()[0] == "--json-$HOME;|"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_count_is_passed_on_to_its_command(number: signal.Signals) -> None:
    script = f"trap 'echo got it; exit 3' {number}; echo ready; while :; do sleep 0.05; done"
    process = start("count", "--", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(number)
    code, out, _ = finish(process)
    assert code == 3
    assert out.startswith("got it\n")
    assert "101 calls" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize(
    ("arguments", "final"),
    [
        (["top", "-i", "60"], "WP FAULTS"),
        (["hist"], "count 101"),
        (["trace"], "TIME"),
        (["count"], "101 calls"),
    ],
)
def test_a_signal_ends_a_command_with_its_final_output(
    number: signal.Signals, arguments: list[str], final: str, tmp_path: Path
) -> None:
    mark = tmp_path / "watched"
    process = start(*arguments, FAKE_MARK=str(mark))
    while not mark.exists():
        time.sleep(0.02)
    process.send_signal(number)
    code, out, _ = finish(process)
    assert code == 0
    assert final in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_attaching_ends_at_once_with_the_code_of_the_signal(
    number: signal.Signals, tmp_path: Path
) -> None:
    mark = tmp_path / "opening"
    process = start("top", FAKE_ERROR="slow", FAKE_MARK=str(mark))
    while not mark.exists():
        time.sleep(0.02)
    process.send_signal(number)
    assert finish(process) == (128 + number, "", "")


def test_an_error_is_two_lines_without_escape_codes_and_has_its_exit_code() -> None:
    code, out, err = finish(start("top", FAKE_ERROR="user"))
    assert (code, out) == (11, "")
    assert err == "mkwrite: This kernel has no \\x1b[31mBTF.\nBoot another one.\n"


def test_a_bug_is_told_in_two_lines_and_its_place_on_demand() -> None:
    code, _, err = finish(start("hist", FAKE_ERROR="bug"))
    assert code == 1
    assert err.startswith("mkwrite: internal error: ZeroDivisionError: of all things\n")
    assert "MKWRITE_DEBUG=1" in err
    _, detailed = start("hist", FAKE_ERROR="bug", MKWRITE_DEBUG="1").communicate(timeout=120)
    assert "Traceback" in detailed
