"""``--since``: what commands print of a record."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from failure_samples import FULL, REFUSED, refused
from recorded import found, write
from samples import series, snapshot

from tracer.cli.main import cli
from tracer.diagnosis.diagnose import diagnose
from tracer.diagnosis.explainer import Explained
from tracer.export.json.failures import explained_dict
from tracer.export.json.records import json_line, snapshot_dict
from tracer.model.failures import Class, FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.host_state import HostState
from tracer.model.waits import Wait, WaitSeries, WaitTime
from tracer.record.minutes import Minute, frame
from tracer.record.reading import Span
from tracer.record.reports import failure_frame
from tracer.ui.sigbus import report

MINUTE = 60 * 10**9
START = REFUSED.time_ns // MINUTE * MINUTE
STATE = HostState(space=FULL, cgroup="/system.slice/db")
FIRST = refused(28, time_ns=START + MINUTE)
SECOND = refused(122, time_ns=START + 5 * MINUTE, comm="writer", process_comm="writer", pid=7, inode=5, fstype="xfs")


def explained(number: int) -> Explained:
    failure = (FIRST, SECOND)[number]
    return Explained(failure, STATE, diagnose(failure, STATE))


def waited(mountpoint: str) -> WaitSeries:
    of = series(mountpoint)
    return WaitSeries(of.fstype, mountpoint, of.dev, of.handler, Wait.JOURNAL)


def minute(number: int) -> Minute:
    counts = replace(
        snapshot({series(f"/{number % 2}"): Histogram.of(*[1000] * number)}, 60 * 10**9),
        failures={FailureSeries("ext4", f"/{number % 2}", 1, Class.REFUSED, "ENOSPC"): number},
        waits={waited(f"/{number % 2}"): WaitTime(number, 10 * number, 10)},
        monotonic_ns=number,
    )
    return Minute(START + number * MINUTE, START + (number + 1) * MINUTE, counts)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Minutes 1 to 7 but for the fifth, with a failure in the first and one in the fifth."""
    place = tmp_path_factory.mktemp("record")
    gap = {"kind": "gap", "from_ns": START, "time_ns": START + MINUTE, "errno": "ENOSPC", "dropped": {"failure": 3}}
    minutes = [frame(minute(number)) for number in (1, 2, 3, 4, 6, 7)]
    write(place, [failure_frame(explained(0)), failure_frame(explained(1)), *minutes, gap])
    return place


def look(place: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, [arguments[0], "--from", str(place), *arguments[1:]])


def at(number: int) -> str:
    return f"@{(START + number * MINUTE) // 10**9}"


def test_reports_in_json_are_those_of_then_byte_for_byte(place: Path) -> None:
    result = look(place, "sigbus", "--json")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [json_line(explained_dict(explained(number))) for number in (0, 1)]


def test_reports_in_text_are_those_of_then(place: Path) -> None:
    result = look(place, "sigbus")
    assert result.stdout == "".join(f"{report(explained(number), 250).plain}\n" for number in (0, 1))


def test_a_span_and_filters_choose(place: Path) -> None:
    for arguments, numbers in {
        ("--since", at(2)): [1],
        ("--until", at(2)): [0],
        ("--comm", "writer"): [1],
        ("--fs", "ext4"): [0],
        ("--pid", "7", "--fs", "ext4"): [],
        ("--cgroup", "/system.slice"): [0, 1],
        ("--cgroup", "/system"): [],
        ("-n", "1"): [0],
    }.items():
        result = look(place, "sigbus", "--json", *arguments)
        found = [json.loads(line)["time_ns"] for line in result.stdout.splitlines()]
        assert found == [(FIRST, SECOND)[number].time_ns for number in numbers]
        assert result.exit_code == 0


def test_fewer_reports_than_asked_for_are_told_as_they_are_live(place: Path) -> None:
    assert look(place, "sigbus", "-n", "3").exit_code == 1
    assert look(place, "sigbus", "-n", "2").exit_code == 0


def test_counts_are_the_sums_of_the_minutes(place: Path) -> None:
    result = look(place, "count", "--json")
    total = minute(1)
    for number in (2, 3, 4, 6, 7):
        total += minute(number)
    assert json.loads(result.stdout) == {"watched": "host", **snapshot_dict(total.counts)}
    some = json.loads(look(place, "count", "--json", "--since", at(3), "--until", at(4), "--mount", "/1").stdout)
    assert [(one["mountpoint"], one["latency"]["count"]) for one in some["calls"]] == [("/1", 3)]
    assert [one["count"] for one in some["failure_counts"]] == [3]


def test_histograms_and_waits_are_the_sums_of_the_minutes(place: Path) -> None:
    span = ("--json", "--since", at(3), "--until", at(4), "--mount", "/1")
    shown = json.loads(look(place, "hist", *span).stdout)
    assert [(one["mountpoint"], one["latency"]["count"]) for one in shown["calls"]] == [("/1", 3)]
    assert "count 3 " in look(place, "hist", *span[1:]).stdout
    result = look(place, "waits", *span)
    shown = json.loads(result.stdout)
    (one,) = shown["waits"]
    assert [(part["part"], part["calls"], part["total_ns"]) for part in one["parts"] if part["calls"]] == [
        ("journal", 3, 30)
    ]
    assert (shown["longest"], one["freeze"]) == ([], None)
    assert "the 20 longest of each minute" in result.stderr
    assert "journal" in look(place, "waits", *span[1:]).stdout


def test_what_the_record_lacks_is_said(place: Path) -> None:
    result = look(place, "count")
    assert "22 calls" not in result.stderr and "23 calls" in result.stdout
    said = result.stderr
    assert "record of db7: Linux 6.12.1, mkwrite 0.1.0, fentry" in said
    assert said.count("nothing is recorded from") == 2  # the fifth minute, and since the last
    assert "(ENOSPC): lost: 3 failure" in said


def test_what_has_no_record_says_so(tmp_path: Path, place: Path) -> None:
    result = look(tmp_path, "sigbus")
    assert (result.exit_code, "There is no record" in str(result.exception)) == (1, True)
    result = look(place, "count", "--until", "@1")
    assert "has no minute of that time" in str(result.exception)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("sigbus -d 1s", "-d is for what happens now"),
        ("sigbus --since 03:12x", "is no time; write one such as"),
        ("sigbus --since @9 --until @8", "which is after"),
        ("sigbus --backend kprobe", "--backend is for what happens now"),
        ("sigbus -- true", "COMMAND is for what happens now"),
        ("count --by process", "does not count by process"),
        ("count --pid 1", "does not count by process"),
        ("hist -i 1s", "-i is for what happens now"),
        ("waits --stacks", "--stacks is for what happens now"),
        ("waits --comm x", "does not count by process"),
    ],
)
def test_what_is_for_live_views_alone_is_refused(place: Path, arguments: str, said: str) -> None:
    result = look(place, *arguments.split())
    assert result.exit_code == 2
    assert said in result.output


def test_the_minute_that_goes_on_is_no_hole(tmp_path: Path) -> None:
    write(tmp_path, [failure_frame(explained(0))])
    _, account = found(tmp_path, Span(START, time.time_ns()))
    (hole,) = account.holes
    assert (hole.from_ns, hole.until_ns) == (START, account.begun_ns)
