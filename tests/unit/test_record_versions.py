"""Records of each version of the format, as the mkwrite of then wrote them, read by that of today.

What stands beside them is what that mkwrite printed of them; members may have come since, and none may differ.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from recorded import found, note, write

from tracer.cli.main import cli
from tracer.record.lines import VERSION
from tracer.record.minutes import minute_of

DATA = Path(__file__).parent / "data"


def has(now: Any, then: Any) -> bool:
    """Whether all that there was is there, and the same."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(name in now and has(now[name], value) for name, value in then.items())
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(has, now, then))
    return bool(now == then)


def test_each_version_has_a_record() -> None:
    assert sorted(path.name for path in DATA.glob("record-*[0-9]")) == [f"record-{one + 1}" for one in range(VERSION)]


@pytest.mark.parametrize("version", range(1, VERSION + 1))
@pytest.mark.parametrize("command", ["count", "sigbus"])
def test_it_is_read_as_it_was_then(version: int, command: str) -> None:
    place = DATA / f"record-{version}"
    result = CliRunner().invoke(cli, [command, "--json", "--from", str(place)])
    assert result.exit_code == 0, result.output
    then = place.with_suffix(f".{command}.jsonl").read_text().splitlines()
    now = result.stdout.splitlines()
    assert len(now) == len(then)
    for line, was in zip(now, then, strict=True):
        assert has(json.loads(line), json.loads(was))


def test_the_first_has_every_kind_and_nothing_damaged() -> None:
    frames, account = found(DATA / "record-1")
    assert {frame["kind"] for frame in frames} == {"minute", "failure", "repeated", "gap", "end"}
    assert account.damaged == 0
    assert [(one["kernel"], one["boot_id"]) for one in account.writers] == [("6.12.1", "one"), ("7.3.0", "two")]
    minutes = [minute_of(frame) for frame in frames if frame["kind"] == "minute"]
    assert sum(sum(minute.counts.failures.values()) for minute in minutes) == 29


def test_todays_writer_goes_on_in_it(tmp_path: Path) -> None:
    place = tmp_path / "record"
    shutil.copytree(DATA / "record-1", place)
    before = found(place)[0]
    write(place, [note(7)])
    after, account = found(place)
    assert after == [*before, note(7)]
    assert account.damaged == 0
