"""A piece of a record to send: the lines of a span of time, as one segment."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.record.lines import decode, encode
from tracer.record.reading import Account, Span, contents, touches
from tracer.record.redact import redacted
from tracer.record.segments import Segments


def cut(record: Segments, span: Span, account: Account, redact: bool) -> Iterator[bytes]:
    """Yield the lines of a span with those that they need, each as it was written: its checksum stays true.

    With ``redact`` the lines are written anew. ``account`` notes what could not be read.
    """
    for data in contents(record, span, account):
        needed: list[bytes] = []
        for written in data.split(b"\n"):
            raw = written.strip(b"\0")
            if not raw:
                continue
            line = decode(raw)
            try:
                if line is None:
                    raise ValueError
                kind = line["kind"]
                if kind == "segment":
                    needed = []
                elif kind != "series" and not touches(line, span):
                    continue
            except (KeyError, TypeError, ValueError):
                account.damaged += 1
                continue
            needed.append(encode(redacted(line)) if redact else raw + b"\n")
            if kind not in ("segment", "series"):
                yield from needed
                needed = []
