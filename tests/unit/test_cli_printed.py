"""What the command line prints, and that it says when it traces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from command_line import TRACING, finish, invoke, objects, start
from failure_samples import REFUSED
from fake_session import FakeSession

from tracer.model.hooks import Backend

pytestmark = pytest.mark.usefixtures("fake_sessions")


def test_top_prints_a_table_for_each_interval_without_escape_codes() -> None:
    result = invoke("top", "-i", "0.1", "-n", "3")
    assert " ".join(result.stdout.split()).count("ext4_page_mkwrite first_write") >= 3
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
        assert interval["failures_omitted"] == 0
    first, second = (interval["total"] for interval in found)
    assert (first["calls"], first["failed_calls"], first["failures"]) == (202, 2, 2)
    assert (second["calls"], second["failed_calls"], second["failures"]) == (303, 3, 3)
    assert second["elapsed_ns"] > first["elapsed_ns"] and set(second["lost"]) == set(found[1]["lost"])


def test_top_json_has_every_failure_that_came_or_says_how_many_others(
    fake_sessions: type[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_sessions, "batches", [[REFUSED] * 150, [REFUSED] * 7])
    (found,) = objects(invoke("top", "-i", "0.2", "-n", "1", "--json"))
    assert (len(found["failures"]), found["failures_omitted"]) == (157, 0)
    monkeypatch.setattr("tracer.cli.run.KEPT_FAILURES", 100)
    monkeypatch.setattr(fake_sessions, "batches", [[REFUSED] * 150, [REFUSED] * 7])
    (found,) = objects(invoke("top", "-i", "0.2", "-n", "1", "--json"))
    assert (len(found["failures"]), found["failures_omitted"]) == (100, 57)


@pytest.mark.parametrize(
    ("arguments", "backend", "limits"),
    [
        ("trace", Backend.FENTRY, " Failures only: --slower DURATION prints slow calls, too."),
        ("trace --slower 1ms", Backend.FENTRY, ""),
        ("trace", Backend.TRACEPOINT, " Failures only: this backend sees no calls."),
        ("trace --slower 1ms", Backend.TRACEPOINT,
         " Failures only: this backend sees no calls, so that --slower shows none."),
    ],
)  # fmt: skip
def test_the_first_line_of_trace_says_what_it_does_not_show(
    fake_sessions: type[FakeSession], monkeypatch: pytest.MonkeyPatch, arguments: str, backend: Backend, limits: str
) -> None:
    monkeypatch.setattr(fake_sessions, "backend", backend)
    said = invoke(*arguments.split(), "-d", "1ms").stderr.splitlines()[0]
    assert said == f"Tracing with the {backend} backend; Ctrl-C ends.{limits}"


def moments(value: object) -> Iterator[tuple[str, int]]:
    """The moments in an object, with their names, however deep."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        if name.endswith(("time_ns", "monotonic_ns")):
            yield name, inner
        yield from moments(inner)
    for inner in value if isinstance(value, list) else ():
        yield from moments(inner)


@pytest.mark.parametrize("arguments", ["top -i 100ms -n 1", "hist -d 1ms", "count -d 1ms", "trace --slower 0 -n 2"])
def test_a_moment_is_of_the_clock_that_its_name_says(arguments: str) -> None:
    found = [moment for line in objects(invoke(*arguments.split(), "--json")) for moment in moments(line)]
    assert found
    decades = 30 * 365 * 86_400 * 10**9  # no machine has been up for so long
    assert [(name, at) for name, at in found if (at < decades) != name.endswith("monotonic_ns")] == []
    assert {"time_ns", "monotonic_ns"} == {name for name, _ in found} or not arguments.startswith("top")


def test_top_cumulative_counts_from_the_start() -> None:
    found = objects(invoke("top", "-i", "0.1", "-n", "2", "--json", "--cumulative"))
    assert [interval["calls"][1]["latency"]["count"] for interval in found] == [200, 300]
    assert " 303 " in invoke("top", "-i", "0.1", "-n", "2", "--cumulative").stdout


def test_top_once_prints_one_interval() -> None:
    assert invoke("top", "-i", "0.1", "--once").stdout.count("WP FAULTS") == 1


@pytest.mark.parametrize(
    "arguments",
    ["top --once -i 100ms", "top --json -n 1 -i 100ms", "hist", "hist -i 100ms", "trace", "trace --json", "waits",
     "waits --folded", "count", "count --json", "count --all -- true", "sigbus", "sigbus --json",
     "sigbus --all -- true"],
)  # fmt: skip
def test_every_watching_command_says_once_on_stderr_that_the_hooks_are_on(arguments: str) -> None:
    words = arguments.split()
    ends = "--" in words or "--once" in words or "-n" in words
    said = invoke(*words, *(() if ends else ("-d", "1ms"))).stderr
    assert said.startswith(TRACING.rstrip())
    assert said.count("Tracing") == 1


def test_it_says_so_of_the_backend_that_it_found(
    fake_sessions: type[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_sessions, "backend", Backend.TRACEPOINT)
    assert invoke("count", "-d", "1ms").stderr == "Tracing with the tracepoint backend; Ctrl-C ends.\n"


def test_what_happens_once_it_said_so_is_counted(
    fake_sessions: type[FakeSession], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    monkeypatch.setattr("tracer.cli.run.announce", lambda session: taken.append(session._taken))
    for arguments in ("count -d 1ms", "top --once -i 100ms", "hist -i 100ms -d 1ms"):
        invoke(*arguments.split())
    assert taken == [1, 1, 1]


def test_a_command_that_could_not_attach_does_not_say_so(fake_sessions: type[FakeSession]) -> None:
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


def test_output_of_another_encoding_is_no_error() -> None:
    code, out, _ = finish(start("hist", "-d", "1ms", PYTHONIOENCODING="ascii"))
    assert code == 0
    assert "####" in out
