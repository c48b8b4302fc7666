"""`count -- COMMAND` and `sigbus -- COMMAND` watch the command alone, or say that they do not."""

from __future__ import annotations

import errno
import json
from contextlib import AbstractContextManager, nullcontext

import pytest
from click.testing import CliRunner
from fake_session import FakeSession

from tracer.cli.main import cli

pytestmark = pytest.mark.usefixtures("fake_sessions")


class Made:
    """A cgroup for tests."""

    path = "/here/own"

    def __enter__(self) -> Made:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def entered(self) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.cli.child.OwnCgroup", Made)


@pytest.mark.parametrize("command", ["count", "sigbus"])
@pytest.mark.parametrize(
    ("options", "cgroups"),
    [
        ([], ("/here/own",)),
        (["--all"], ()),
        (["--cgroup", "/x"], ("/x",)),
        (["--pid", "1"], ()),
        (["--comm", "a"], ("/here/own",)),
    ],
    ids=" ".join,
)
def test_a_command_is_watched_alone_unless_others_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, command: str, options: list[str], cgroups: tuple[str, ...]
) -> None:
    monkeypatch.setattr(FakeSession, "batches", [])
    result = CliRunner().invoke(cli, [command, *options, "--", "true"])
    assert result.exit_code == 0, result.output
    assert [opened.filters.cgroups for opened in FakeSession.opened] == [cgroups]


@pytest.mark.parametrize("options", [[], ["--all"]])
def test_json_says_whom_it_counts(options: list[str]) -> None:
    result = CliRunner().invoke(cli, ["count", "--json", *options, "--", "true"])
    assert json.loads(result.stdout)["watched"] == ("host" if options else "command")
    assert "whole host" not in result.stderr


def test_where_there_can_be_no_cgroup_the_host_is_watched_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Made:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tracer.cli.child.OwnCgroup", refuse)
    result = CliRunner().invoke(cli, ["count", "--json", "--", "true"])
    assert (
        "mkwrite: The whole host is watched: COMMAND gets no cgroup of its own (Permission denied).\n" in result.stderr
    )
    assert json.loads(result.stdout)["watched"] == "host"
    assert [opened.filters.cgroups for opened in FakeSession.opened] == [()]


@pytest.mark.parametrize("command", ["count", "sigbus"])
def test_all_without_a_command_is_bad_usage(command: str) -> None:
    assert CliRunner().invoke(cli, [command, "--all", "-d", "1ms"]).exit_code == 2
    assert FakeSession.opened == []
