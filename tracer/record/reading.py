"""Reading a record: the frames of a span of time, and what is to be said of the record itself."""

from __future__ import annotations

import os
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple

from tracer.record.lines import LABELLED, VERSION, decode_all
from tracer.record.segments import Segment, Segments

#: What a segment may have at most, so that no file fills the memory.
_MOST: Final = 256 << 20
#: When a file was last written says how late its lines are, unless the clock was set back meanwhile: by less than this.
_SLACK_NS: Final = 86_400_000_000_000
_SECOND_NS: Final = 1_000_000_000
#: Most of a record is minutes, whose lines begin so: they are decoded where they are wanted alone.
_MINUTE: Final = re.compile(rb'\{"kind":"minute","from_ns":(\d{1,20}),"time_ns":(\d{1,20}),')
#: The minute that goes on now is not written yet.
_RECENT_NS: Final = 90 * _SECOND_NS


class Span(NamedTuple):
    """From ``since_ns`` to ``until_ns`` of the wall clock."""

    since_ns: int
    until_ns: int


class Hole(NamedTuple):
    """A time that the record has nothing of."""

    from_ns: int
    until_ns: int


@dataclass(slots=True)
class Account:
    """What the record has, and lacks, of the span that was read.

    ``writers``: first lines of segments in which something was found (host, kernel, mkwrite), each once. ``newer``: by
    version of the format, how many segments this mkwrite cannot read. ``damaged``: lines and segments that are not as
    they were written. ``gaps``, ``steps``: frames that tell of gaps, and of steps of the clock. ``holes``: times when
    nothing was counted, or that is lost.
    """

    writers: list[dict[str, Any]] = field(default_factory=list)
    newer: Counter[int] = field(default_factory=Counter)
    damaged: int = 0
    unreadable: list[str] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    minutes: int = 0
    from_ns: int = 0
    until_ns: int = 0
    #: When the last of those exporters began.
    begun_ns: int = 0

    def cover(self, from_ns: int, until_ns: int) -> None:
        """Note a minute; those before it have been noted."""
        stepped = any(abs(step["time_ns"] - from_ns) < _SECOND_NS for step in self.steps)
        if self.minutes and from_ns > self.until_ns + _SECOND_NS and not stepped:
            self.holes.append(Hole(self.until_ns, from_ns))
        self.from_ns = min(from_ns, self.from_ns) if self.minutes else from_ns
        self.until_ns = max(until_ns, self.until_ns)
        self.minutes += 1

    def end(self, span: Span) -> None:
        """Note what lacks at both ends."""
        now_ns = time.time_ns()
        until_ns = min(span.until_ns, now_ns)
        if not self.minutes:
            # The first minute may be going on.
            recent = now_ns - _RECENT_NS < self.begun_ns < until_ns
            self.holes.append(Hole(span.since_ns, max(span.since_ns, self.begun_ns) if recent else until_ns))
            return
        if self.from_ns > span.since_ns + _SECOND_NS:
            self.holes.insert(0, Hole(span.since_ns, self.from_ns))
        if self.until_ns < until_ns - _SECOND_NS and self.until_ns < now_ns - _RECENT_NS:
            self.holes.append(Hole(self.until_ns, until_ns))


def read(
    record: Segments, span: Span, account: Account, kinds: Collection[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Read the frames of a span in the order in which they were written, labels filled in; ``account`` grows meanwhile.

    A minute is in the span if a part of it is. ``kinds``: these alone, which is faster; ``account`` then lacks others.
    """
    wanted = partial(_wanted, span, _beginnings(kinds))
    for data in contents(record, span, account):
        yield from _frames(data, span, account, wanted)
    account.end(span)


def contents(record: Segments, span: Span, account: Account) -> Iterator[bytes]:
    """Yield the lines of each segment that may have something of a span; ``account`` notes those that cannot be read.

    What was compressed is whole, though what it was made of may still be there: that is left out.
    """
    for segment in {segment.number: segment for segment in record.segments()}.values():
        if segment.version > VERSION:
            account.newer[segment.version] += 1
            continue
        try:
            yield _data(record, segment, span, account)
        except OSError as error:
            account.unreadable.append(f"{segment.name}: {error.strerror}")


def _data(record: Segments, segment: Segment, span: Span, account: Account) -> bytes:
    fd = record.open(segment.name)
    with os.fdopen(fd, "rb") as stream:
        if os.fstat(fd).st_mtime_ns < span.since_ns - _SLACK_NS:
            return b""
        data = stream.read(_MOST)
    if not segment.closed:
        data = data[: data.rstrip(b"\0").rfind(b"\n") + 1]  # the line that is being written now is no damage
        return data
    inflate = zlib.decompressobj(wbits=31)
    parts = []
    try:
        for at in range(0, len(data), 1 << 16):
            parts.append(inflate.decompress(data[at : at + (1 << 16)], _MOST))
    except zlib.error:
        pass
    account.damaged += not inflate.eof
    return b"".join(parts)


def _beginnings(kinds: Collection[str] | None) -> tuple[bytes, ...]:
    """Return what lines of these kinds, and those that they need, begin with."""
    if kinds is None:
        return (b"",)
    needed = ("segment", "series") if "minute" in kinds else ("segment",)
    return tuple(f'{{"kind":"{kind}"'.encode() for kind in (*needed, *kinds))


def _wanted(span: Span, beginnings: tuple[bytes, ...], line: bytes) -> bool:
    """Whether a line may be one of those, and is no minute that is before or after the span; without decoding it."""
    if not line.startswith(beginnings):
        return False
    minute = _MINUTE.match(line)
    return minute is None or (int(minute[2]) >= span.since_ns and int(minute[1]) <= span.until_ns)


def _frames(data: bytes, span: Span, account: Account, wanted: Callable[[bytes], bool]) -> Iterator[dict[str, Any]]:
    series: dict[int, dict[str, Any]] = {}
    writer: dict[str, Any] = {}
    for line in decode_all(data, wanted):
        try:
            if line is None:
                raise ValueError
            match line["kind"]:
                case "segment":
                    series, writer = {}, {name: value for name, value in line.items() if name not in _MOMENTS}
                    account.begun_ns = max(account.begun_ns, line["time_ns"])
                    continue
                case "series":
                    labels = {name: value for name, value in line.items() if name not in ("kind", "number", "of")}
                    series[int(line["number"])] = labels
                    continue
            if not touches(line, span):
                continue
            yield _filled(line, series)
        except (KeyError, TypeError, ValueError):
            account.damaged += 1
            continue
        if writer and writer not in account.writers:
            account.writers.append(writer)
        if line["kind"] == "minute":
            account.cover(line["from_ns"], line["time_ns"])
        elif line["kind"] == "gap":
            account.gaps.append(line)
        elif line["kind"] == "clock":
            account.steps.append(line)


def touches(line: Mapping[str, Any], span: Span) -> bool:
    """Whether what a line tells of is in a span, or a part of it. Raises KeyError or TypeError for what is no line."""
    begins = line["time_ns"] if line["kind"] not in ("minute", "gap") else line["from_ns"]
    return bool(line["time_ns"] >= span.since_ns and begins <= span.until_ns)


_MOMENTS: Final = ("kind", "time_ns", "monotonic_ns")


def _filled(line: dict[str, Any], series: dict[int, dict[str, Any]]) -> dict[str, Any]:
    for kind in LABELLED:
        if kind in line:
            line[kind] = [[series[number], *values] for number, *values in line[kind]]
    if "tracer" in line:
        line["tracer"] = series[line["tracer"]]
    return line
