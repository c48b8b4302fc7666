"""What passes between the tracer and the process that answers HTTP: bytes over sockets that nobody else has.

That process asks in one byte each, and takes an answer as its length and as many bytes. The tracer tells it in JSON,
with a length too, what to do, and is answered in JSON.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

_LENGTH: Final = struct.Struct("!I")
#: Of what the tracer is told; the other direction is trusted.
_MOST_TOLD: Final = 4096


class Question(IntEnum):
    """All that can be asked of the tracer."""

    PAGE = 0
    TEXT = 1
    TEXT_GZIP = 2
    OPENMETRICS = 3
    OPENMETRICS_GZIP = 4
    FAILURES = 5
    STUCK = 6
    RISK = 7
    CALLS = 8

    @classmethod
    def metrics(cls, openmetrics: bool, gzip: bool) -> Question:
        """Return the metrics in this format."""
        return cls(cls.TEXT + 2 * openmetrics + gzip)


class Unanswered(Exception):
    """The tracer could not answer; it has logged why."""


def ask(channel: socket.socket, question: Question) -> bytes:
    """Return the answer.

    Nobody else may use the channel meanwhile. Raises Unanswered, or OSError if the tracer has ended.
    """
    channel.sendall(bytes([question]))
    body = _receive(channel)
    if not body:
        raise Unanswered
    return body


def answer_all(channel: socket.socket, make: Callable[[Question], bytes]) -> None:
    """Answer with what ``make`` makes (b"" if it cannot) until the other end closes, or asks what there is not."""
    while number := channel.recv(1):
        try:
            body = make(Question(number[0]))
        except ValueError:
            return
        channel.sendall(_LENGTH.pack(len(body)))
        channel.sendall(body)


def order(channel: socket.socket, seconds: float, **told: Any) -> str:
    """Have the other end do something; what keeps it from that, or "". Raises OSError if it does not answer in time."""
    end = time.monotonic() + seconds
    channel.settimeout(seconds)
    _send(channel, told)
    text = _receive(channel, end, _MOST_TOLD)
    try:
        return str(json.loads(text)["problem"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OSError("no answer") from None


def obey(channel: socket.socket, do: Callable[..., str]) -> None:
    """Do what is ordered, until the tracer is gone; ``do`` returns what keeps it from that."""
    while text := _receive(channel):
        _send(channel, {"problem": do(**json.loads(text))[: _MOST_TOLD // 8]})


def _send(channel: socket.socket, told: object) -> None:
    text = json.dumps(told).encode()
    channel.sendall(_LENGTH.pack(len(text)) + text)


def _receive(channel: socket.socket, end: float | None = None, most: int = 1 << 32) -> bytes:
    """Return a message; b"" where the other end has closed, or says too much.

    Raises OSError, as TimeoutError at ``end``.
    """
    head = _take(channel, _LENGTH.size, end)
    (length,) = _LENGTH.unpack(head) if head else (0,)
    return _take(channel, length, end) if length <= most else b""


def _take(channel: socket.socket, size: int, end: float | None) -> bytes:
    taken = bytearray(size)
    rest = memoryview(taken)
    while rest:
        if end is not None:
            channel.settimeout(max(end - time.monotonic(), 0.001))
        if not (number := channel.recv_into(rest)):
            return b""
        rest = rest[number:]
    return bytes(taken)
