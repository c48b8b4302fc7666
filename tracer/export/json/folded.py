"""Stacks as lines that flame graphs are made of: frames, the outermost first, and a number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tracer.latency.stacks import Seen
from tracer.model.calls import device_name
from tracer.text import printable


def folded_lines(seen: Iterable[Seen]) -> Iterator[str]:
    """``mount point;function;...;reason MICROSECONDS`` for each; what would split a frame is replaced."""
    for one in seen:
        where = one.where
        frames = [where.mountpoint or device_name(where.dev), *reversed(where.stack or (where.handler,)), where.reason]
        yield f"{';'.join(map(_frame, frames))} {one.ns // 1000}"


def _frame(name: str) -> str:
    return printable(name).replace(";", ",").replace(" ", "_")
