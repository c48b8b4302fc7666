"""Text for people: nothing in it acts on a terminal, and it keeps to its width."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tracer.text import (
    LONGEST_NS,
    count_text,
    counted,
    duration,
    keep_ends,
    keep_head,
    keep_tail,
    offset_text,
    parse_duration,
    printable,
    shell_word,
    size_text,
)

SECOND = 10**9
#: Everything that a file name can be, as Python sees it.
any_text = st.one_of(st.text(), st.binary().map(lambda raw: raw.decode(errors="surrogateescape")))


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("plain name", "plain name"),
        ("größe 日本", "größe 日本"),
        ("a\nb\tc\r", r"a\x0ab\x09c\x0d"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("\x7f\x00", r"\x7f\x00"),
        (b"\xff\x80".decode(errors="surrogateescape"), r"\xff\x80"),
        ("exe\u202etxt.\u200b", r"exe\u202etxt.\u200b"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
        ("system-a\\x2db.slice", "system-a\\x2db.slice"),
        ("[red]x[/red]", "[red]x[/red]"),
    ],
)
def test_what_a_terminal_could_act_on_is_escaped(text: str, escaped: str) -> None:
    assert printable(text) == escaped


@pytest.mark.parametrize("name", ["plain", "a b", "it's\n\\x \udcff\u202e", "$(reboot)\n`x`"])
def test_a_word_for_a_shell_is_printable_and_means_the_name(name: str) -> None:
    word = shell_word(name)
    assert word.isprintable()
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], stdout=subprocess.PIPE, check=True).stdout
    assert said == os.fsencode(name)


@given(any_text)
def test_printable_text_is_printable_and_stays_as_it_is(text: str) -> None:
    once = printable(text)
    assert once.isprintable()
    assert once.encode().decode() == once
    assert printable(once) == once


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0ns"),
        (-5, "0ns"),
        (812, "812ns"),
        (999.4, "999ns"),
        (999.6, "1.0us"),
        (4_100, "4.1us"),
        (9_960, "10.0us"),
        (12_300_000, "12.3ms"),
        (999_600_000, "1.00s"),
        (1_200_000_000, "1.20s"),
        (123 * SECOND, "123s"),
        (1000 * SECOND, "16.7m"),
        (100_000 * SECOND, "27.8h"),
        (10**15 * SECOND, ">999d"),
    ],
)
def test_a_duration_has_the_unit_that_suits_it(ns: float, text: str) -> None:
    assert duration(ns) == text


@given(st.floats(min_value=0, max_value=1e30))
def test_a_duration_takes_six_columns_at_most(ns: float) -> None:
    assert len(duration(ns)) <= 6


@given(st.integers(min_value=1, max_value=900 * 86400 * SECOND))
def test_a_printed_duration_is_within_its_last_digit(ns: int) -> None:
    text = duration(ns)
    if text.endswith("d"):
        return
    assert parse_duration(text) == pytest.approx(ns, rel=0.05, abs=0.6)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0),
        ("10ms", 10_000_000),
        ("1.5s", 1_500_000_000),
        ("250us", 250_000),
        ("250µs", 250_000),
        (" 2 m ", 120 * SECOND),
        ("1h", 3600 * SECOND),
        ("7ns", 7),
        (".5us", 500),
        ("0.1s", 100_000_000),
    ],
)
def test_durations_are_understood(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["", "5", "ms", "-1s", "1e3s", "1..5s", "1s2", "\u0661s", "1 parsec", "9" * 400 + "s"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="10ms"):
        parse_duration(text)


def test_a_duration_of_more_than_a_year_is_refused() -> None:
    assert parse_duration("8760h") == LONGEST_NS
    with pytest.raises(ValueError, match="year"):
        parse_duration("8761h")


@given(st.text(max_size=30))
def test_parsing_a_duration_fails_in_no_other_way(text: str) -> None:
    try:
        ns = parse_duration(text)
    except ValueError:
        return
    assert 0 <= ns <= LONGEST_NS


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (0.34, "0.3"),
        (9, "9"),
        (9.97, "10"),
        (9999, "9999"),
        (12_345, "12.3k"),
        (999_600, "1.00M"),
        (3e9, "3.00G"),
    ],
)
def test_counts_are_compact(number: float, text: str) -> None:
    assert count_text(number) == text


@given(st.floats(min_value=0, max_value=1e30))
def test_a_count_takes_five_columns_at_most(number: float) -> None:
    assert len(count_text(number)) <= 5


def test_an_offset_is_hexadecimal() -> None:
    assert offset_text(0x3000) == "0x3000"


def test_shortened_text_keeps_the_part_that_matters() -> None:
    path = "/var/lib/postgresql/15/main/base/16384/2619"
    assert keep_head(path, 10) == "/var/lib/…"
    assert keep_tail(path, 11) == "…16384/2619"
    assert keep_ends(path, 16) == "/var/…16384/2619"
    assert keep_ends(path, 100) == path


@given(any_text.map(printable), st.integers(min_value=0, max_value=40))
def test_shortened_text_keeps_to_its_width(text: str, width: int) -> None:
    for shorten in (keep_head, keep_tail, keep_ends):
        assert cell_len(shorten(text, width)) <= width
        if cell_len(text) <= width:
            assert shorten(text, width) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (102_348, "99.9 KiB"),
        (102_400, "100 KiB"),
        ((1 << 20) - 1, "1.0 MiB"),
        (10_093_173_145, "9.4 GiB"),
        (1 << 63, "8.0 EiB"),
    ],
)
def test_sizes_are_readable(size: int, text: str) -> None:
    assert size_text(size) == text


@given(st.integers(min_value=0, max_value=1 << 64))
def test_sizes_keep_to_their_width(size: int) -> None:
    assert len(size_text(size)) <= 8


def test_one_is_counted_as_one() -> None:
    assert counted(1, "file") == "1 file"
    assert [counted(n, "process", "processes") for n in (0, 2)] == ["0 processes", "2 processes"]
