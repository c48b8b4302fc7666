"""Values as text for people: escaped strings, durations, compact counts, shortened paths. No I/O.

Widths are terminal cells. The functions that shorten take strings that were escaped before.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from rich.cells import cell_len, set_cell_size

ELLIPSIS: Final = "…"

_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DURATION: Final = re.compile(rf"(\d{{1,18}}(?:\.\d{{1,18}})?|\.\d{{1,18}})\s?({'|'.join(_UNITS)})", re.ASCII)
#: The longest duration that can be asked for: a year; a longer one is a typing error.
LONGEST_NS: Final = 365 * 24 * _UNITS["h"]

#: (size of the unit in ns, its name, decimals of a value below 10), smallest first.
_STEPS: Final = (
    (1.0, "ns", 0),
    (1e3, "us", 1),
    (1e6, "ms", 1),
    (1e9, "s", 2),
    (60e9, "m", 1),
    (3600e9, "h", 1),
    (86400e9, "d", 0),
)


def printable(text: str) -> str:
    r"""``text`` with everything that a terminal could act on, or that would mislead a reader, escaped.

    Control characters (ANSI escapes, newlines, C1) and bytes that were not UTF-8 become ``\xNN``; format
    characters (bidi overrides, zero-width ones), odd spaces and unassigned code points ``\xNN`` or
    ``\uNNNN``. A backslash stays as it is: cgroup names are full of them.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(ord(char)) for char in text)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # an undecodable byte, as surrogateescape keeps it
        code -= 0xDC00
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def shell_word(text: str) -> str:
    """``text`` quoted for a shell; in the manner of bash where there is something in it that is not printable."""
    if text.isprintable():
        return shlex.quote(text)
    escapes = {"\\": "\\\\", "'": "\\'"}
    chars = (
        escapes.get(char, char)
        if char.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )
    return f"$'{''.join(chars)}'"


def duration(ns: float) -> str:
    """``ns`` nanoseconds in at most 6 columns: ``812ns``, ``4.1us``, ``12.3ms``, ``1.20s``, ``16.7m``."""
    ns = max(0.0, ns)
    for size, unit, decimals in _STEPS:
        value = ns / size
        if value < 999.5:
            return f"{value:.{_decimals(value, decimals)}f}{unit}"
    return ">999d"


def _decimals(value: float, most: int) -> int:
    """Decimals that keep ``value`` at three digits once it is rounded."""
    return most if value < 10 - 0.5 / 10**most else min(most, 1) if value < 99.95 else 0


def parse_duration(text: str) -> int:
    """Nanoseconds of a duration such as ``10ms``, ``1.5s``, ``250us``, ``2m`` or ``0``.

    Raises ValueError, with a message for the user, when the text is none or means more than a year.
    """
    stripped = text.strip()
    if stripped == "0":
        return 0
    match = _DURATION.fullmatch(stripped)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit: 250us, 10ms, 1.5s, 2m")
    ns = int(Decimal(match[1]) * _UNITS[match[2]])
    if ns > LONGEST_NS:
        raise ValueError(f"{text!r} is longer than a year")
    return ns


def counted(number: int, one: str, many: str = "") -> str:
    """``1 file``, ``2 files``; ``many`` where that is not ``one`` with an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def some(names: Sequence[str]) -> str:
    """Up to three names, escaped; of more, how many processes that are, and the first three."""
    shown = ", ".join(map(printable, names[:3]))
    return shown if len(names) <= 3 else f"{len(names)} processes ({shown}, ...)"


def count_text(number: float) -> str:
    """Return a count or a rate in at most 5 columns: ``0``, ``0.3``, ``9999``, ``12.3k``, ``1.23M``, ``123G``."""
    if number < 9.95 and number != int(number):
        return f"{number:.1f}"
    if number < 9_999.5:
        return f"{number:.0f}"
    for unit in "kMGTP":
        number /= 1000
        if number < 999.5:
            return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}{unit}"
    return ">999P"


def size_text(size: int) -> str:
    """Return a number of bytes in at most 8 columns: ``0 B``, ``999 B``, ``4.0 KiB``, ``9.4 GiB``, ``1023 MiB``."""
    if size < 1024:
        return f"{size} B"
    value, unit = float(size), ""
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):  # noqa: B007  # the last one is used
        value /= 1024
        if value < 1023.5:
            break
    return f"{value:.{1 if value < 99.95 else 0}f} {unit}"


def offset_text(offset: int) -> str:
    """Return a byte offset in a file, as kernel people read it: hexadecimal."""
    return f"{offset:#x}"


def keep_head(text: str, width: int) -> str:
    """``text`` cut to ``width`` cells at its end: ``ext4_page_mk…``."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + ELLIPSIS if width > 0 else ""


def keep_tail(text: str, width: int) -> str:
    """``text`` cut to ``width`` cells at its beginning: ``…/postgres/base``."""
    if cell_len(text) <= width:
        return text
    return ELLIPSIS + _tail(text, width - 1) if width > 0 else ""


def keep_ends(text: str, width: int) -> str:
    """``text`` cut to ``width`` cells in its middle, the end favoured: ``/var/…/16384/2619``."""
    if cell_len(text) <= width:
        return text
    head = (width - 1) // 3
    if head < 1:
        return keep_tail(text, width)
    return set_cell_size(text, head).rstrip() + ELLIPSIS + _tail(text, width - 1 - head)


def _tail(text: str, width: int) -> str:
    """Return the longest end of ``text`` that fits ``width`` cells."""
    start, used = len(text), 0
    while start and (used := used + cell_len(text[start - 1])) <= width:
        start -= 1
    return text[start:]
