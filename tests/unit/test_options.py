"""One option is one thing in every command; docs/options.md has them all."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from command_line import invoke, objects
from fake_session import FakeSession

from tracer.cli.main import COMMANDS, cli
from tracer.errors import UsageError
from tracer.host.stacks import Sleeper

pytestmark = pytest.mark.usefixtures("fake_sessions")

PAGE = Path(__file__).parents[2] / "docs/options.md"


def options() -> dict[str, set[str]]:
    """The commands that have an option, by its names."""
    found: dict[str, set[str]] = {}
    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                found.setdefault(", ".join(parameter.opts), set()).add(name)
    return found


def test_the_page_has_every_option_of_every_command_and_no_other() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z, ]+) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert [names for names, _ in rows] == sorted((names for names, _ in rows), key=lambda text: text.lstrip("-"))
    assert {names: set(commands.split(", ")) for names, commands in rows} == options()


@pytest.mark.parametrize("arguments", ["top -i 0.1", "trace", "sigbus", "stuck -t 1ms -i 0.1"])
@pytest.mark.parametrize(("number", "shown"), [("--once", 1), ("-n 1", 1), ("-n 3", 3), ("--number 2", 2)])
def test_once_and_a_number_mean_so_many_of_what_is_shown(
    monkeypatch: pytest.MonkeyPatch, arguments: str, number: str, shown: int
) -> None:
    monkeypatch.setattr("tracer.latency.stuck.readable", lambda: True)
    monkeypatch.setattr("tracer.latency.stuck.sleepers", lambda: ([], 0))
    monkeypatch.setattr("tracer.latency.stuck.concealed", lambda: "")
    # Each fetch brings the same failure: of one file and cause, so that sigbus explains the first alone.
    if arguments == "sigbus" and shown > 1:
        result = CliRunner().invoke(cli, [*arguments.split(), *number.split(), "--json", "-d", "0.2"])
        assert result.exit_code == 1  # fewer came in time
        return
    assert len(objects(invoke(*arguments.split(), *number.split(), "--json"))) == shown


@pytest.mark.parametrize("command", ["top", "trace", "sigbus", "stuck"])
def test_once_and_a_number_exclude_each_other(command: str) -> None:
    assert CliRunner().invoke(cli, [command, "--once", "-n", "2"]).exit_code == 2
    assert FakeSession.opened == []


def test_export_once_counts_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("tracer.cli.export._ONCE_NS", 50_000_000)
    monkeypatch.setattr(FakeSession, "wait", lambda session, seconds: waited.append(seconds))
    assert "mkwrite_up 1.0" in invoke("export", "--once").stdout
    assert waited


@pytest.mark.parametrize(
    ("arguments", "old", "new"),
    [
        ("top --iterations 2 -i 0.1 --json", "--iterations", "--number"),
        ("trace --lines=2", "--lines", "--number"),
        ("export --once -d 1ms --per process", "--per", "--by"),
        ("doctor --fs", "--fs", "--filesystems"),
    ],
)
def test_a_former_name_works_with_a_note(arguments: str, old: str, new: str) -> None:
    result = invoke(*arguments.split())
    assert f"mkwrite: {old} is {new} now; the old name goes with the next release.\n" in result.stderr
    assert result.stdout
    assert f"{old} " not in invoke(arguments.split()[0], "--help").stdout


def test_the_exporters_bound_on_sources_has_a_name_of_its_own() -> None:
    old = invoke("export", "--once", "-d", "1ms", "--max-series", "1")
    assert "only in this release it bounds the sources, too (--max-sources)" in old.stderr
    new = invoke("export", "--once", "-d", "1ms", "--max-sources", "1")
    assert "max-series" not in new.stderr
    assert {o.max_series for o in FakeSession.opened} == {4096}


def test_stuck_shows_what_the_filters_let_through_and_tells_what_it_cannot_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asleep = [
        Sleeper(7, 7, comm, ("percpu_rwsem_wait", "ext4_page_mkwrite", "do_page_mkwrite")) for comm in ("one", "two")
    ]
    monkeypatch.setattr("tracer.latency.stuck.readable", lambda: True)
    monkeypatch.setattr("tracer.latency.stuck.sleepers", lambda: (asleep, 0))
    monkeypatch.setattr("tracer.latency.stuck.concealed", lambda: "")
    arguments = ["stuck", "-t", "1ms", "--once", "--json", "--comm", "two"]
    (look,) = objects(invoke(*arguments))
    assert [call["comm"] for call in look["stuck"]] == ["two"] and look["unseen"] == []
    result = CliRunner().invoke(cli, [*arguments, "--fs", "ext4"])
    assert result.exit_code == 28
    (look,) = objects(result)
    assert look["stuck"] == [] and look["unseen"][0].startswith("1 call of which is not known")
    assert isinstance(CliRunner().invoke(cli, ["stuck", "--fs", "no-such"]).exception, UsageError)
