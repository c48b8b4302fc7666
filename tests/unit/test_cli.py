"""The command line: what it asks of a session, what it prints, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_session import FakeSession, fake_module

from tracer.cli import top as top_module
from tracer.cli.live import LiveTop
from tracer.cli.main import COMMANDS, cli
from tracer.cli.run import Stop
from tracer.model import Backend, By, Filters, Options
from tracer.ui.calls import SORTS

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(Path(__file__).with_name("fake_session.py"))]
MINE = ("top", "hist", "trace", "count")
#: What is said once the hooks are on.
TRACING = "Tracing with the fentry backend; Ctrl-C ends.\n"


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeSession]]:
    """Every session is a made-up one."""
    monkeypatch.setitem(sys.modules, "tracer.session", fake_module())
    FakeSession.opened.clear()
    FakeSession.closed = 0
    yield FakeSession
    assert FakeSession.closed == len(FakeSession.opened)


def invoke(*arguments: str) -> Result:
    """Run the command line in this process; it must succeed."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "", **more}


def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start the program with a made-up session."""
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; no traceback in any case."""
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out, err


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
        "top --once -d 5s",
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


def test_top_prints_a_table_for_each_interval_without_escape_codes() -> None:
    result = invoke("top", "-i", "0.1", "-n", "3")
    assert result.stdout.count("ext4_page_mkwrite  first_write") >= 3
    assert result.stdout.count("WP FAULTS") == 3
    assert result.stdout.count("lost: 0") == 3
    assert "last failures" in result.stdout
    assert "\x1b" not in result.stdout


def test_top_json_is_one_object_an_interval_with_its_own_counts() -> None:
    found = objects(invoke("top", "-i", "0.1", "-n", "2", "--json"))
    assert len(found) == 2
    for interval in found:
        assert [calls["latency"]["count"] for calls in interval["calls"]] == [1, 100]
        assert interval["failures"][0]["pid"] == 4242
        assert len(interval["failures"]) <= 100


def test_top_cumulative_counts_from_the_start() -> None:
    found = objects(invoke("top", "-i", "0.1", "-n", "2", "--json", "--cumulative"))
    assert [interval["calls"][1]["latency"]["count"] for interval in found] == [200, 300]
    assert " 303 " in invoke("top", "-i", "0.1", "-n", "2", "--cumulative").stdout


def test_top_once_prints_one_interval() -> None:
    assert invoke("top", "-i", "0.1", "--once").stdout.count("WP FAULTS") == 1


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


@pytest.mark.parametrize(
    "arguments",
    ["top --once -i 100ms", "top --json -n 1 -i 100ms", "hist", "hist -i 100ms", "trace", "trace --json", "waits",
     "waits --folded", "count", "count --json", "count -- true", "sigbus", "sigbus --json", "sigbus -- true"],
)  # fmt: skip
def test_every_watching_command_says_once_on_stderr_that_the_hooks_are_on(arguments: str) -> None:
    words = arguments.split()
    ends = "--" in words or "--once" in words or "-n" in words
    said = invoke(*words, *(() if ends else ("-d", "1ms"))).stderr
    assert said.startswith(TRACING)
    assert said.count("Tracing") == 1


def test_it_says_so_of_the_backend_that_it_found(fake: type[FakeSession], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "backend", Backend.TRACEPOINT)
    assert invoke("count", "-d", "1ms").stderr == "Tracing with the tracepoint backend; Ctrl-C ends.\n"


def test_what_happens_once_it_said_so_is_counted(fake: type[FakeSession], monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr("tracer.cli.run.announce", lambda session: taken.append(session._taken))
    for arguments in ("count -d 1ms", "top --once -i 100ms", "hist -i 100ms -d 1ms"):
        invoke(*arguments.split())
    assert taken == [1, 1, 1]


def test_a_command_that_could_not_attach_does_not_say_so(fake: type[FakeSession]) -> None:
    _, _, said = finish(start("hist", FAKE_ERROR="user"))
    assert "Tracing" not in said


def test_hist_prints_once_at_the_end() -> None:
    lines = invoke("hist", "-d", "10ms").stdout.splitlines()
    assert lines[0] == "/srv ext4 8:1 ext4_page_mkwrite first_write"
    assert lines[1].startswith("count 101 ")
    assert lines[-1].startswith("lost: 0")


def test_hist_by_outcome_prints_outcomes_apart() -> None:
    lines = invoke("hist", "-d", "10ms", "--by-outcome").stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("count ")] == ["100", "1"]


def test_hist_prints_every_interval_when_asked() -> None:
    found = objects(invoke("hist", "-i", "0.1", "-d", "0.25", "--json"))
    assert len(found) in (2, 3)
    assert {calls["latency"]["count"] for interval in found for calls in interval["calls"]} == {100, 1}


@pytest.mark.parametrize("command", ["count", "hist", "waits"])
def test_failures_are_counted_by_class_and_errno(command: str) -> None:
    lines = invoke(command, "-d", "10ms").stdout.splitlines()
    title = next(number for number, line in enumerate(lines) if line.split()[2:] == ["FAILURE", "ERRNO", "COUNT"])
    assert lines[title + 1].split() == ["/srv", "ext4", "refused", "ENOSPC", "1"]
    (found,) = objects(invoke(command, "-d", "10ms", "--json"))
    assert [(one["class"], one["errno"], one["count"]) for one in found["failure_counts"]] == [("refused", "ENOSPC", 1)]


@pytest.mark.parametrize("command", ["top -n 1 -i 0.1", "trace -n 1", "export --once -d 1ms"])
def test_with_tracepoints_nothing_of_calls_is_asked_for(command: str) -> None:
    invoke(*command.split(), "--backend", "tracepoint")
    assert [(o.backend, o.slower_ns, o.waits) for o in FakeSession.opened] == [(Backend.TRACEPOINT, None, False)]


def test_stuck_does_not_wait_for_hooks_that_it_does_not_need() -> None:
    invoke("stuck", "--once", "-t", "1ms")
    assert FakeSession.opened == [Options(failures=False, waits=True)]


def test_trace_prints_a_header_and_a_line_for_each_event_and_losses_apart() -> None:
    result = invoke("trace", "-n", "3")
    lines = result.stdout.splitlines()
    assert lines[0].split()[0] == "TIME"
    assert len(lines) == 4
    assert all(line.endswith("/srv/data") for line in lines[1:])
    assert result.stderr.splitlines()[1].startswith("lost: 0")


def test_trace_prints_what_came_before_the_hooks_went() -> None:
    """The fake brings an event whenever it is asked; the last one is asked for after finish()."""
    found = objects(invoke("trace", "--json", "-d", "1ms"))
    assert len(found) == 2
    assert (found[0]["kind"], found[0]["file"]) == ("failure", "/srv/data")


def test_count_prints_counts_since_its_beginning() -> None:
    result = invoke("count", "-d", "10ms")
    assert "101 calls in" in result.stdout
    (found,) = objects(invoke("count", "-d", "10ms", "--json"))
    assert [calls["latency"]["count"] for calls in found["calls"]] == [1, 100]
    assert found["wp_faults"] == dict.fromkeys(found["wp_faults"], 0)


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
    assert errors == TRACING


@pytest.mark.parametrize(
    "arguments", [["--help"], ["completion", "bash"], ["hist", "-d", "1ms"], ["count", "-d", "1ms"]]
)
def test_a_pipe_that_was_closed_before_is_quiet_too(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, *arguments], env=environment(), stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    said = "" if "completion" in arguments or "--help" in arguments else TRACING
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
    errors = done.stderr.removeprefix(TRACING)
    assert errors.startswith("mkwrite: The output cannot be written: No space left on device.\n")
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


def test_closed_output_is_no_error() -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *PROGRAM, "hist", "-d", "1ms"], env=environment(), timeout=120
    )
    assert done.returncode == 0


def test_output_of_another_encoding_is_no_error() -> None:
    code, out, _ = finish(start("hist", "-d", "1ms", PYTHONIOENCODING="ascii"))
    assert code == 0
    assert "####" in out
