"""The command ``sigbus``: what it asks for, what it prints and counts, and how it ends."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner, Result
from failure_samples import refused
from fake_session import FakeSession, fake_module

from tracer.cli.main import cli
from tracer.model.hooks import Backend
from tracer.model.options import Filters, Options

#: A process that does not exist, so that nothing is learned from /proc.
FAILURE = replace(refused(errno.ENOSPC), pid=4194305, dev=0)


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeSession]]:
    """A session that brings the given batches of failures, one a call, then nothing."""
    monkeypatch.setitem(sys.modules, "tracer.session", fake_module())
    monkeypatch.setattr(FakeSession, "batches", [[FAILURE]])
    monkeypatch.setattr(FakeSession, "seen_of_each", 1)
    FakeSession.opened.clear()
    yield FakeSession


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["sigbus", *arguments], env={"COLUMNS": "80"})


def records(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_once_prints_a_report_and_ends() -> None:
    result = invoke("--once")
    assert result.exit_code == 0
    assert "ENOSPC, returned by ext4_da_reserve_space" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert "lost: 0  backend: fentry, hooks: 2 of 2" in result.stderr


def test_once_fails_when_none_came_in_time(fake: type[FakeSession]) -> None:
    fake.batches = []
    result = invoke("--once", "-d", "20ms")
    assert (result.exit_code, result.stdout) == (1, "")


def test_what_repeats_is_told_once_and_counted(fake: type[FakeSession]) -> None:
    fake.batches = [[FAILURE, replace(FAILURE, ordinal=2)], [replace(FAILURE, ordinal=211)]]
    fake.seen_of_each = 211
    told, more = records(invoke("--json", "-d", "20ms"))
    assert (told["kind"], told["errno"], told["pid"]) == ("failure", "ENOSPC", FAILURE.pid)
    assert (more["kind"], more["count"], more["inode"]) == ("repeated", 210, FAILURE.inode)


def test_another_errno_of_the_same_file_is_another_failure(fake: type[FakeSession]) -> None:
    other = replace(refused(errno.EIO), pid=FAILURE.pid, dev=0)
    fake.batches = [[FAILURE, other]]
    assert [record["errno"] for record in records(invoke("--json", "-d", "20ms"))] == ["ENOSPC", "EIO"]


def test_failures_that_come_at_the_end_are_told(fake: type[FakeSession]) -> None:
    fake.batches = [[], [FAILURE]]
    assert len(records(invoke("--json", "-d", "1ms"))) == 1


def test_a_command_sets_the_time_and_the_exit_code() -> None:
    result = invoke("--json", "--", "sh", "-c", "exit 7")
    assert result.exit_code == 7
    assert len(records(result)) == 1


@pytest.mark.parametrize("option", [["--once"], ["-d", "1s"]])
def test_a_command_and_another_end_exclude_each_other(option: list[str]) -> None:
    assert invoke(*option, "--", "true").exit_code == 2


def test_filters_are_passed_on(fake: type[FakeSession]) -> None:
    invoke("--once", "--fs", "xfs", "--pid", "1", "--backend", "kprobe")
    assert fake.opened == [Options(Backend.KPROBE, Filters(fs=("xfs",), pids=(1,)), every_errno=True)]


def test_help_has_examples() -> None:
    lines = invoke("--help").stdout.splitlines()
    examples = lines[lines.index("  Examples:") + 1 :]
    assert all(line.startswith("    mkwrite sigbus") for line in examples)
    assert max(map(len, lines)) <= 80


def test_output_that_cannot_be_written_ends_as_it_does_without_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tracer.cli.output.print_json", full)
    result = invoke("--json", "--", "sleep", "0.3")
    assert isinstance(result.exception, OSError) and result.exception.errno == errno.ENOSPC
