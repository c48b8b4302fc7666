"""Moments as people write them, daylight saving included."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.cli.when import When

FIRST, LAST = When(first=True), When(first=False)


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def ns(text: str) -> int:
    """Nanoseconds of a moment in UTC."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 10**6) * 1000


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-12-01T08:00:00"),
        ("03:12", "2026-12-01T02:12:00"),
        ("03:12:07.5", "2026-12-01T02:12:07.500000"),
        ("today", "2026-11-30T23:00:00"),
        ("yesterday", "2026-11-29T23:00:00"),
        ("yesterday 22:00", "2026-11-30T21:00:00"),
        ("tomorrow 01:00", "2026-12-02T00:00:00"),
        ("2026-12-01", "2026-11-30T23:00:00"),
        ("2026-12-01 03:12", "2026-12-01T02:12:00"),
        ("2026-07-01 03:12:09", "2026-07-01T01:12:09"),
        ("2026-12-01T03:12:00Z", "2026-12-01T03:12:00"),
        ("2026-12-01T03:12:00+05:30", "2026-11-30T21:42:00"),
        ("@1764558720", "2025-12-01T03:12:00"),
        ("-2h", "2026-12-01T06:00:00"),
        ("-1h30min", "2026-12-01T06:30:00"),
        ("2 days ago", "2026-11-29T08:00:00"),
        ("+5m", "2026-12-01T08:05:00"),
    ],
)
def test_a_moment_is_what_journalctl_takes_it_for(text: str, moment: str) -> None:
    now = datetime(2026, 12, 1, 8, tzinfo=UTC).astimezone()
    assert FIRST.moment(text, now) == LAST.moment(text, now) == ns(moment)


def test_a_time_that_comes_twice_leaves_nothing_out() -> None:
    now = datetime(2026, 10, 25, 12, tzinfo=UTC).astimezone()
    assert FIRST.moment("02:30", now) == ns("2026-10-25T00:30:00")
    assert LAST.moment("02:30", now) == ns("2026-10-25T01:30:00")


def test_a_time_that_never_comes_leaves_nothing_out() -> None:
    now = datetime(2026, 3, 29, 12, tzinfo=UTC).astimezone()
    assert FIRST.moment("02:30", now) == ns("2026-03-29T00:30:00")
    assert LAST.moment("02:30", now) == ns("2026-03-29T01:30:00")


@pytest.mark.parametrize("text", ["", "-", "soon", "25:00", "-2x", "-h", "2h", "@", "@nan", "2026-13-01"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # each in its own words; the command has its own
        FIRST.moment(text, datetime.now().astimezone())


@given(st.text())
def test_any_text_is_a_moment_or_no_value(text: str) -> None:
    with suppress(ValueError, OverflowError, OSError):
        FIRST.moment(text, datetime.now().astimezone())
