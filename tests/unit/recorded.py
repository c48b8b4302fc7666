"""Frames and records that the tests share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tracer.record.reading import Account, Span, read
from tracer.record.segments import Directory
from tracer.record.store import LEAST_SIZE, Limits, Store

EVER = Span(0, 1 << 62)
WRITER = {"mkwrite": "0.1.0", "kernel": "6.12.1", "boot_id": "one", "host": "db7", "backend": "fentry"}
LIMITS = Limits(LEAST_SIZE, 14 * 86_400)


def note(number: int, size: int = 0) -> dict[str, Any]:
    """A frame that says which one it is."""
    return {"kind": "repeated", "time_ns": 10**18 + number, "number": number, "text": "x" * size}


def store(place: Path, limits: Limits = LIMITS, writer: Mapping[str, object] = WRITER) -> tuple[Directory, Store]:
    """A store in a directory, opened to be written to."""
    place.chmod(0o750)
    directory = Directory(place, writing=True)
    return directory, Store(directory, limits, writer)


def write(place: Path, frames: Iterable[Mapping[str, Any]], limits: Limits = LIMITS) -> None:
    """Have a writer write frames, and end."""
    directory, made = store(place, limits)
    for frame in frames:
        made.append(frame)
    made.close()
    directory.close()


def found(place: Path, span: Span = EVER) -> tuple[list[dict[str, Any]], Account]:
    """The frames of a record, and what is said of it."""
    account = Account()
    directory = Directory(place)
    try:
        return list(read(directory, span, account)), account
    finally:
        directory.close()


def numbers(place: Path) -> list[int]:
    """Which of the frames of ``note`` are there."""
    return [frame["number"] for frame in found(place)[0] if "number" in frame]
