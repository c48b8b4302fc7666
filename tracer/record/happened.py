"""What happened beside counts and failures, each in a line; and what filesystems had left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text

from tracer.export.json.records import exact
from tracer.record.space import Spaces
from tracer.text import printable, size_text
from tracer.ui.labels import time_of_day


def happened(frames: Iterable[Mapping[str, Any]]) -> list[Text]:
    """Return a line for each frame of a record that is such an event."""
    return [Text(f"{time_of_day(one['time_ns'])}  {said}") for one in frames if (said := _said(one))]


def left(spaces: Spaces) -> list[Text]:
    """Return a line for each filesystem: what it had left."""
    return [
        Text(
            f"{printable(place.mountpoint)} {printable(place.fstype)}: "
            f"{size_text(space.free)} free of {size_text(space.total)}",
            "" if space.free else "bold red",
        )
        for place, space in sorted(spaces.items())
    ]


def _said(one: Mapping[str, Any]) -> str:
    match one["kind"]:
        case "freeze":
            return f"{_where(one)} frozen by {_actor(one['by'])}"
        case "thaw":
            return f"{_where(one)} thawed by {_actor(one['by'])}"
        case "mount" | "umount" | "remount":
            done = {"mount": "mounted", "umount": "unmounted", "remount": "has other options"}[one["kind"]]
            options = f" ({_text(one['super_options'])})" if one["kind"] != "umount" else ""
            return f"{_where(one)} {done}{options}"
        case "start":
            return f"mkwrite {_text(one['mkwrite'])} began to record, on Linux {_text(one['kernel'])}"
        case "end":
            return "the recording ended" + ("" if one["clean"] else ", killed")
        case "clock":
            return f"the clock was set, from {time_of_day(one['before_ns'])}"
    return ""


def _where(one: Mapping[str, Any]) -> str:
    return f"{_text(one['mountpoint']) or one['device']} {_text(one['fstype'])}".rstrip()


def _actor(by: Mapping[str, Any] | None) -> str:
    return f"{_text(by['comm'])}[{by['pid']}]" if by else "somebody, before there were hooks"


def _text(escaped: str) -> str:
    return printable(exact(str(escaped)))
