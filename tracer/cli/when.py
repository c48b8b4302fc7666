"""A moment as journalctl(1) takes it: ``03:12``, ``yesterday 22:00``, ``-2h``, ``2026-12-01 03:12:00``, ``now``."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, time, timedelta
from typing import Any, Final

import click

_SECOND_NS: Final = 1_000_000_000
_UNITS: Final = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1, "m": 60, "min": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hr": 3600, "hour": 3600, "hours": 3600, "d": 86_400, "day": 86_400, "days": 86_400,
    "w": 604_800, "week": 604_800, "weeks": 604_800,
}  # fmt: skip
_PART: Final = re.compile(r"(\d{1,9})\s*([a-z]+)\s*", re.ASCII)
_DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
_EXAMPLES: Final = '"03:12", "yesterday 22:00", "-2h", "2026-12-01 03:12" or "@1764558720"'


class When(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A moment; its value is ns of the wall clock.

    A time that the clock shows twice, as when daylight saving ends, or not at all, may be either of two moments: the
    ``first`` or the last of them is taken, so that a span leaves nothing out.
    """

    name = "when"

    def __init__(self, *, first: bool) -> None:
        self.choose: Callable[[float, float], float] = min if first else max

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the moment; fails as bad usage on text that is none."""
        if isinstance(value, int):
            return value
        try:
            return self.moment(value.strip(), datetime.now().astimezone())
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is no time; write one such as {_EXAMPLES}", param, ctx)

    def moment(self, text: str, now: datetime) -> int:
        """Nanoseconds of the wall clock. Raises ValueError for what is no moment."""
        if text == "now":
            return _ns(now.timestamp())
        if text[:1] == "@":
            return _ns(float(text[1:]))
        if text[:1] in ("-", "+") or text.endswith(" ago"):
            sign = 1 if text[0] == "+" else -1
            return _ns(now.timestamp() + sign * _seconds(text.removesuffix(" ago").lstrip("-+ ")))
        local = _local(text, now)
        if local.tzinfo:
            return _ns(local.timestamp())
        return _ns(self.choose(*(local.replace(fold=fold).timestamp() for fold in (0, 1))))


def _local(text: str, now: datetime) -> datetime:
    """Return a day, a time, or both; without a zone it is that of this host."""
    day, _, rest = text.partition(" ")
    if day in _DAYS:
        date = (now + timedelta(days=_DAYS[day])).date()
        return datetime.combine(date, time.fromisoformat(rest.strip()) if rest else time())
    if ":" in day and "-" not in day:
        return datetime.combine(now.date(), time.fromisoformat(text))
    return datetime.fromisoformat(text)


def _seconds(text: str) -> int:
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text):
        raise ValueError(text)
    return sum(int(number) * _UNITS[unit] if unit in _UNITS else _unknown(unit) for number, unit in parts)


def _unknown(unit: str) -> int:
    raise ValueError(unit)


def _ns(seconds: float) -> int:
    """To the microsecond, which a float of today still tells."""
    return round(seconds * 1_000_000) * 1000
