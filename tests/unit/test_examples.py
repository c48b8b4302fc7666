"""The worked examples of the docs are those of tests/examples, and say what those must say."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.reports import EXPECTED, differences, labels, printed, renewed, shown

PAGE = Path(__file__).resolve().parents[2] / "docs" / "commands" / "sigbus.md"


@pytest.mark.parametrize("command", EXPECTED)
def test_the_page_shows_what_each_report_must_say(command: str) -> None:
    assert list(differences(command, shown(PAGE.read_text())[command])) == []


def test_what_was_wrapped_is_put_together_and_a_second_report_is_left_alone() -> None:
    text = "SIGBUS 2026 a[7]\n  victim  a, process 7,\n          user 0\n  class   x\nSIGBUS 2026 b[8]\n  victim  b\n"
    refused = text.replace("SIGBUS", "EFAULT")
    expected = {"victim": "a, process 7, user 0", "class": "x"}
    assert labels(text) == labels(f"said by the program\n{text}") == labels(refused) == expected


def test_a_page_is_renewed_with_what_was_printed() -> None:
    output = printed("\n$ mkwrite sigbus -- a\nnew\nexit code 135\n\n$ mkwrite sigbus -- b\nexit code 0\n")
    assert output == {"sigbus -- a": ("new\n", "135"), "sigbus -- b": ("", "0")}
    page = "Text.\n\n    $ mkwrite sigbus -- a\n    old\n      older\n\nMore.\n\n    $ mkwrite count\n    1\n"
    assert renewed(page, output) == page.replace("    old\n      older\n", "    new\n")
