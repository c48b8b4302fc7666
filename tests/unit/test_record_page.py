"""``mkwrite report``: the page says what the record says, and nothing on it runs."""

from __future__ import annotations

import re
from html import unescape

import night
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tracer.cli.main import cli
from tracer.model.failures import Class
from tracer.record.timescale import MOST, Timescale
from tracer.ui.sigbus import words


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of the whole night."""
    place = night.record(tmp_path_factory.mktemp("record"))
    file = tmp_path_factory.mktemp("page") / "night.html"
    result = CliRunner().invoke(cli, ["report", "--from", str(place), "-o", str(file)])
    assert (result.exit_code, result.stdout) == (0, ""), result.stderr
    assert file.stat().st_mode & 0o777 == 0o640
    return file.read_text()


def test_each_kind_of_failure_has_its_report_and_how_often_it_came(text: str) -> None:
    (report,) = re.findall("<pre>(<span>SIGBUS.*?)</pre>", text)
    lines = [unescape(line).replace("\xa0", "") for line in re.findall("<span>(.*?)</span>", report)]
    assert lines == words(night.victim(72)).split("\n")
    assert "3 times" in text and "database[4072] and 2 more" in text
    # The kernel counted five.
    assert "2 failures more only counted." in text


def test_it_has_the_sums_of_the_record(text: str) -> None:
    minutes = night.MINUTES - len(night.HOLE)
    assert f"calls: {minutes * night.CALLS}" in text
    assert "refused: 5" in text
    assert len(re.findall('<rect class="unknown"', text)) == 4 * len(night.HOLE)
    assert "A column is 1 minute" in text
    assert "0 B</td>" in text  # the least that was free
    assert "nothing is recorded from" in text


def test_it_fetches_and_runs_nothing(text: str) -> None:
    assert not re.search(r"<(script|img|link|iframe)\b|\bsrc=|url\(|@import", unescape(text).replace(night.NASTY, ""))
    assert not re.search(r"<(script|img)\b", text)
    assert """content="default-src &#x27;none&#x27;;""" in text
    assert [one for one in re.findall('href="(.*?)"', text) if not one.startswith("#")] == []


def test_no_more_columns_than_a_screen_has_and_every_call_in_one() -> None:
    scale = Timescale()
    for number in range(4000):
        scale.add(night.minute(number)) if number % 40 == 0 else None
    columns = scale.columns()
    assert MOST // 2 <= len(columns) <= MOST
    assert scale.minutes == 32
    assert sum(one.latencies.count for one in columns if one) == 100 * night.CALLS
    assert sum(one.failures[Class.REFUSED] for one in columns if one) == sum(
        n for number, n in night.FAILED.items() if number % 40 == 0
    )


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30))
def test_columns_are_the_same_in_whatever_order_minutes_come(numbers: list[int]) -> None:
    one, other = Timescale(), Timescale()
    for number in numbers:
        one.add(night.minute(number))
    for number in sorted(numbers):
        other.add(night.minute(number))
    counts = [[column and column.latencies.count for column in scale.columns()] for scale in (one, other)]
    assert counts[0] == counts[1]
    assert one.begins_ns == other.begins_ns
