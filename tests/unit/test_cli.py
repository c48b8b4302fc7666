"""The command line: what it asks of a session, what it refuses, and its help."""

from __future__ import annotations

import time

import pytest
from click.testing import CliRunner
from command_line import finish, invoke, start
from fake_session import FakeSession

from tracer.cli import top as top_module
from tracer.cli.live import LiveTop
from tracer.cli.main import COMMANDS, cli
from tracer.cli.run import Stop
from tracer.model.hooks import Backend
from tracer.model.options import By, Filters, Options
from tracer.ui.calls import SORTS

pytestmark = pytest.mark.usefixtures("fake_sessions")

MINE = ("top", "hist", "trace", "count")


@pytest.mark.parametrize("command", MINE)
def test_every_filter_reaches_the_session(command: str) -> None:
    filters = "--fs ext4 --fs xfs --mount /a --pid 7 --pid 9 --comm db --cgroup /x --handler f"
    invoke(command, "-d", "1ms", *filters.split(), "--backend", "kprobe")
    assert FakeSession.opened == [
        Options(
            backend=Backend.KPROBE,
            filters=Filters(("ext4", "xfs"), ("/a",), (7, 9), ("db",), ("/x",), ("f",)),
            waits=command == "top",
        )
    ]


@pytest.mark.parametrize("command", MINE)
def test_without_options_everything_is_traced(command: str) -> None:
    invoke(command, "-d", "1ms")
    assert FakeSession.opened == [Options(waits=command == "top")]


@pytest.mark.parametrize("command", ["top", "hist", "count"])
@pytest.mark.parametrize("by", By)
def test_by_reaches_the_session(command: str, by: By) -> None:
    invoke(command, "-d", "1ms", "--by", by.value)
    assert FakeSession.opened == [Options(by=by, waits=command == "top")]


@pytest.mark.parametrize(("text", "ns"), [("10ms", 10_000_000), ("0", 0), ("1.5s", 1_500_000_000)])
def test_slower_reaches_the_session_in_ns(text: str, ns: int) -> None:
    invoke("trace", "-d", "1ms", "--slower", text)
    assert FakeSession.opened == [Options(slower_ns=ns, waits=True)]


@pytest.mark.parametrize(
    "arguments",
    [
        "top --sort colour",
        "top -i 1ms",
        "top -i soon",
        "top -n 0",
        "top --by user",
        "top --pid 0",
        "top --backend uprobe",
        "hist extra",
        "trace --slower 10",
        "trace --slower -1s",
        "trace --by file",
        "trace --slower 1s --backend tracepoint",
        "count -d 1s -- true",
        "count -d 9999999h",
        "count -o /no/such/directory/file",
        "top --once -n 3",
        "risk -i 1s",
        "risk --above nan",
        "risk --above 1e999",
        "completion tcsh",
        "nonsense",
    ],
)
def test_bad_usage_has_exit_code_2_and_opens_no_session(arguments: str) -> None:
    result = CliRunner().invoke(cli, arguments.split())
    assert result.exit_code == 2
    assert not result.stdout
    assert FakeSession.opened == []


@pytest.mark.parametrize("seconds", ["0.3", "0.3s", "300ms"])
def test_a_bare_duration_is_in_seconds(seconds: str) -> None:
    begin = time.monotonic()
    invoke("hist", "-d", seconds)
    assert 0.3 <= time.monotonic() - begin < 20


@pytest.mark.parametrize("command", MINE)
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_examples_line_by_line(command: str, flag: str) -> None:
    lines = invoke(command, flag).stdout.splitlines()
    examples = lines[lines.index("  Examples:") + 1 :]
    assert len(examples) >= 4
    assert all(line.startswith(f"    mkwrite {command}") for line in examples)
    assert max(map(len, lines)) <= 80


def test_help_lists_every_command() -> None:
    assert all(f"\n  {name} " in invoke("--help").stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("typed", "meant"), [("tpo", "'top'"), ("sigbuss", "'sigbus'"), ("mpas", "'maps'"), ("hlep", "'help'")]
)
@pytest.mark.parametrize("before", [[], ["help"]])
def test_a_mistyped_command_gets_a_suggestion(before: list[str], typed: str, meant: str) -> None:
    result = CliRunner().invoke(cli, [*before, typed])
    assert result.exit_code == 2
    assert f"There is no command '{typed}'. Did you mean {meant}" in result.output


def test_a_command_like_no_other_gets_no_suggestion_and_control_characters_are_escaped() -> None:
    assert CliRunner().invoke(cli, ["xyzzy"]).output.endswith("There is no command 'xyzzy'.\n")
    assert "\x1b" not in CliRunner().invoke(cli, ["\x1b[2J"]).output


def test_a_mistyped_option_gets_a_suggestion() -> None:
    result = CliRunner().invoke(cli, ["top", "--cumulativ"])
    assert result.exit_code == 2
    assert "--cumulative" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_what_the_option_shows(name: str) -> None:
    assert invoke("help", name).stdout == invoke(name, "--help").stdout
    assert invoke("help").stdout == invoke("--help").stdout


def test_version_names_the_program() -> None:
    assert invoke("--version").stdout.startswith("mkwrite ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_asks_the_program(shell: str) -> None:
    script = invoke("completion", shell).stdout
    assert f"_MKWRITE_COMPLETE={shell}_complete" in script


def test_the_program_answers_a_completion_script() -> None:
    process = start(_MKWRITE_COMPLETE="bash_complete", COMP_WORDS="mkwrite trace --sl", COMP_CWORD="2")
    assert "--slower" in finish(process)[1]


def test_sort_names_are_those_of_the_table() -> None:
    (option,) = (parameter for parameter in top_module.top.params if parameter.name == "sort")
    assert list(option.type.choices) == list(SORTS)  # type: ignore[attr-defined]


def test_top_takes_a_filter_while_it_runs_and_no_key_of_it_is_a_command() -> None:
    stop = Stop()
    live = LiveTop(stop, "calls", cumulative=False, who="")
    for key in "/xqf\x7fs":
        live.press(key)
    assert (live.only, live.typing, stop.requested, live.sort) == ("xqs", True, False, "calls")
    live.press("\r")
    assert (live.only, live.typing) == ("xqs", False)
    live.press("\x1b")
    assert live.only == ""
    for key in "/ext\x1b":
        live.press(key)
    assert (live.only, live.typing) == ("", False)


def test_any_key_leaves_the_help_of_top_and_does_nothing_else() -> None:
    stop = Stop()
    live = LiveTop(stop, "calls", cumulative=False, who="")
    live.press("h")
    assert live.helping
    live.press("q")
    assert (live.helping, stop.requested) == (False, False)


def test_keys_of_top() -> None:
    stop = Stop()
    live = LiveTop(stop, "calls", cumulative=False, who="")
    live.press("s")
    assert live.sort == "p50"
    for _ in range(len(SORTS) - 1):
        live.press("s")
    assert live.sort == "calls"
    live.press("r")
    live.press("p")
    assert (live.reverse, live.paused) == (True, True)
    live.press("x")
    assert not stop.requested
    live.press("q")
    assert stop.requested


@pytest.mark.parametrize("command", ["top -n 1 -i 0.1", "trace -n 1", "export --once -d 1ms"])
def test_with_tracepoints_nothing_of_calls_is_asked_for(command: str) -> None:
    invoke(*command.split(), "--backend", "tracepoint")
    assert [(o.backend, o.slower_ns, o.waits) for o in FakeSession.opened] == [(Backend.TRACEPOINT, None, False)]


def test_stuck_does_not_wait_for_hooks_that_it_does_not_need() -> None:
    CliRunner().invoke(cli, ["stuck", "--once", "-t", "1ms"])
    assert FakeSession.opened == [Options(failures=False, waits=True)]
