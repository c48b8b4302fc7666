"""``mkwrite export --record``, with a session of made-up counts: what it counted and told is on the disk."""

from __future__ import annotations

import os
import re
import select
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse
from recorded import found
from test_export_cli import COMMAND, ENVIRONMENT, get, running

from tracer.record.minutes import minute_of


def writer_of(pid: int) -> int:
    """The process that writes the record of an exporter."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (writer,) = (child for child in children if b"tracer.record" in Path(f"/proc/{child}/cmdline").read_bytes())
    return int(writer)


def kinds(place: Path) -> list[str]:
    """The frames that a record has, while it is written, too."""
    return [frame["kind"] for frame in found(place)[0]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o750)
    return tmp_path


def test_the_record_has_what_the_metrics_had_and_each_report(place: Path) -> None:
    with running("--record", str(place)) as (process, address, _):
        metrics = get(address, "/metrics")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    frames, account = found(place)
    minutes = [minute_of(frame) for frame in frames if frame["kind"] == "minute"]
    total = minutes[0]
    for minute in minutes[1:]:
        total += minute
    values = {(s.name, s.labels.get("outcome")): s.value for family in parse(metrics) for s in family.samples}
    counted = {series.outcome.value: histogram.count for series, histogram in total.counts.calls.items()}
    # The session counts more with each snapshot: those since the first, which the record begins with.
    assert counted["writable"] == 100 * counted["sigbus"]
    assert counted["sigbus"] >= values["mkwrite_calls_total", "sigbus"] - 1
    assert sum(total.counts.failures.values()) == counted["sigbus"]
    (report,) = (frame for frame in frames if frame["kind"] == "failure")
    assert (report["file"], report["comm"]) == ("/srv/data", "postgres")
    assert [frame["clean"] for frame in frames if frame["kind"] == "end"] == [True]
    assert (account.damaged, account.gaps, len(account.writers)) == (0, [], 1)
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.iterdir()} == {0o640}


def test_it_tells_how_the_record_is(place: Path) -> None:
    with running("--record", str(place)) as (_, address, _):
        metrics = get(address, "/metrics")
    assert "mkwrite_record_up 1.0" in metrics
    assert re.search(r'mkwrite_record_dropped_total{kind="failure"} 0.0', metrics)


def test_a_killed_exporter_leaves_its_reports_and_an_end_that_is_none(place: Path) -> None:
    with running("--record", str(place)) as (process, _, _):
        writer = writer_of(process.pid)
        ended = os.pidfd_open(writer)
        end = time.monotonic() + 120
        while "failure" not in kinds(place) and time.monotonic() < end:
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert select.select([ended], [], [], 120)[0]
    assert [frame["clean"] for frame in found(place)[0] if frame["kind"] == "end"] == [False]
    assert kinds(place) == ["start", "failure", "end"]


def test_a_writer_that_is_killed_ends_no_exporter_and_is_told(place: Path) -> None:
    with running("--record", str(place)) as (process, address, _):
        assert process.stderr is not None
        writer = writer_of(process.pid)
        os.kill(writer, signal.SIGKILL)
        assert process.stderr.readline().startswith("The record's writer has ended")
        assert "mkwrite_record_up 0.0" in get(address, "/metrics")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_directory_that_cannot_be_used_is_told_before_anything_is_attached(place: Path) -> None:
    (place / "other").write_text("")
    for arguments, said in {
        ("--record", str(place)): "has 'other', which is no file of a record",
        ("--record", str(place / "none")): "There is no directory",
        ("--record", str(place), "--record-size", "1M"): "too small",
        ("--record", str(place), "--record-age", "14"): "is no age; write a number and one of h, d",
        ("--record", str(place), "--once"): "--once counts one interval",
    }.items():
        done = run("--listen", "127.0.0.1:0", *arguments) if "--once" not in arguments else run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr and "Traceback" not in done.stderr
