"""A frame for readers who are strangers: without command lines, and with paths that tell a file apart but not where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

#: Members whose text is one path, blanks and all.
_PATHS: Final = frozenset({"file", "mountpoint", "mount_source", "source", "root", "module", "cgroup", "errno_at"})
#: A path within a sentence or a command.
_PATH: Final = re.compile(r"(?:/[^\s/'\"`:;,|&<>()\[\]{}]+){3,}")
_LEFT_OUT: Final = "..."


def redacted(frame: Mapping[str, Any]) -> dict[str, Any]:
    """Return a frame of the record in which command lines are empty, and long paths have their two ends alone.

    Names of processes, hosts, filesystems and files stay: without them a reader could not tell one from another.
    """
    names = sorted(set(_named(frame)), key=len, reverse=True)
    return {member: _shown(member, value, names) for member, value in frame.items()}


def _named(value: Any, member: str = "") -> list[str]:
    """Return the paths that have a member of their own."""
    if isinstance(value, Mapping):
        return [name for key, each in value.items() for name in _named(each, key)]
    if isinstance(value, list):
        return [name for each in value for name in _named(each, member)]
    return [value] if isinstance(value, str) and member in _PATHS and _short(value) != value else []


def _shown(member: str, value: Any, names: list[str]) -> Any:
    if member == "command":
        return type(value)() if isinstance(value, list | str) else value
    if isinstance(value, Mapping):
        return {key: _shown(key, each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_shown(member, each, names) for each in value]
    return _text(value, names) if isinstance(value, str) else value


def _text(text: str, names: list[str]) -> str:
    for name in names:
        text = text.replace(name, _short(name))
    return _PATH.sub(lambda path: _short(path[0]), text)


def _short(path: str) -> str:
    """Return a path of more than two names as its first and its last."""
    parts = path.split("/")
    if parts[0] or len(parts) <= 3 or parts[2] == _LEFT_OUT:
        return path
    return f"/{parts[1]}/{_LEFT_OUT}/{parts[-1]}"
