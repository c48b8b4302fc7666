"""One line of the record: a JSON object whose last member is a checksum of what stands before it. No I/O."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

#: The format of the lines, and of the names of the files that they are in.
VERSION: Final = 1
#: Members of a minute that are lists: each of labels, which have a line of their own and a number, and its numbers.
LABELLED: Final = ("calls", "failures", "waits", "space", "risk")
_MARK: Final = b',"crc32":"'
_END: Final = b'"}'
#: Bytes of the checksum's member.
_TAIL: Final = len(_MARK) + 8 + len(_END)


def encode(record: Mapping[str, object]) -> bytes:
    """Write a record that is not empty as a line: ASCII, with the newline."""
    body = json.dumps(record, separators=(",", ":"), allow_nan=False).encode()[:-1]
    return body + _MARK + _sum(body) + _END + b"\n"


def decode(line: bytes) -> dict[str, Any] | None:
    """Read a line without its newline; None for one that is not as it was written."""
    body, tail = line[:-_TAIL], line[-_TAIL:]
    if tail != _MARK + _sum(body) + _END:
        return None
    try:
        record = json.loads(body + b"}")
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("kind"), str) else None


def decode_all(data: bytes, wanted: Callable[[bytes], bool] = lambda line: True) -> Iterator[dict[str, Any] | None]:
    """Read the lines of a segment, None for each that is damaged; zeros are room that nothing was written to yet.

    ``wanted``: whether to read a line at all.
    """
    for line in data.split(b"\n"):
        if wanted(line) and line.strip(b"\0"):
            yield decode(line.lstrip(b"\0"))


def end_of(data: bytes) -> int:
    """Find where the last line ends that is as it was written: what stands behind it is a torn tail, or nothing."""
    end = len(data)
    while (newline := data.rfind(b"\n", 0, end)) >= 0:
        begin = data.rfind(b"\n", 0, newline) + 1
        if decode(data[begin:newline]) is not None:
            return newline + 1
        end = newline
    return 0


def _sum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)
