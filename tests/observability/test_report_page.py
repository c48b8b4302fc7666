"""The page of ``mkwrite report`` in a real browser: nothing runs, nothing is cut off, all can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import night
import pytest
from click.testing import CliRunner

from tracer.cli.main import cli

from .browser import Tab, browse, browser
from .test_browser import SIGHT


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page, as a file."""
    place = night.record(tmp_path_factory.mktemp("record"))
    file = tmp_path_factory.mktemp("page") / "night.html"
    assert CliRunner().invoke(cli, ["report", "--from", str(place), "-o", str(file)]).exit_code == 0
    return file


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    """A browser."""
    with browser() as one:
        yield one


def test_nothing_runs_and_nothing_is_forbidden_that_it_needs(file: Path, tmp_path: Path) -> None:
    text, complaints = browse(tmp_path / "profile", "--dump-dom", file.as_uri())
    assert "<title>owned" not in text
    assert complaints == ""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_can_be_read(file: Path, tab: Tab, width: int, dark: bool) -> None:
    tab.open(file.as_uri(), width, dark=dark)
    titles = "[...document.querySelectorAll('h2')].map(one => one.textContent)"
    assert tab.value(titles) == [
        "Failures", "Stuck", "Time lines", "Slow calls", "Calls of page_mkwrite", "Filesystems",
        "What happened besides", "The record",
    ]  # fmt: skip
    # The first report is seen without a click, and the charts fill their places.
    assert tab.value("document.querySelector('details[open] pre').getBoundingClientRect().top") < 900
    charts = "[...document.querySelectorAll('.chart svg')].map(one => one.getBoundingClientRect().width)"
    assert len(tab.value(charts)) == 4 and min(tab.value(charts)) > width / 2
    seen = tab.value(SIGHT)
    assert seen["wide"] <= width and seen["right"] <= width, seen
    assert seen["small"] >= 12 and seen["least"] >= 4.5, seen
    assert (seen["light"] < 0.1) == dark, seen
