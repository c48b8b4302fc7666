"""What the process that answers HTTP may say to the tracer: no more than there is to ask, however it says it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
from prometheus_client.exposition import choose_encoder

from tracer.export.http.application import OPENMETRICS, PLAIN
from tracer.export.http.questions import Question, Unanswered, answer_all, ask, obey, order


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The tracer's end and the other."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_each_question_gets_its_answer(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    thread = threading.Thread(target=answer_all, args=(ours, lambda question: b"x" * (question.value << 20)))
    thread.start()
    for question in Question:
        if question.value:
            assert ask(theirs, question) == b"x" * (question.value << 20)
        else:
            with pytest.raises(Unanswered):
                ask(theirs, question)
    theirs.close()
    thread.join(60)
    assert not thread.is_alive()


def test_a_question_that_there_is_not_ends_it_unanswered(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    theirs.sendall(bytes([len(Question), 0]))
    asked: list[Question] = []
    answer_all(ours, lambda question: bool(asked.append(question)) or b"x")
    assert asked == []


def test_an_order_is_carried_out_or_told_why_not(channel: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = channel
    thread = threading.Thread(target=obey, args=(theirs, lambda do, **told: f"{do}: {told['why']}"))
    thread.start()
    assert order(ours, 60, do="refuse", why="for fun") == "refuse: for fun"
    assert len(order(ours, 60, do="refuse", why="\x00" * 100_000)) == 512
    ours.close()
    thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\0\0",
        struct.pack("!I", 1 << 31),
        struct.pack("!I", 4097) + b"x" * 4097,
        struct.pack("!I", 4000) + b"x",
        struct.pack("!I", 2) + b"{}",
        struct.pack("!I", 4000) + b"[" * 4000,
        struct.pack("!I", 1) + b"\xff",
    ],
)
def test_a_reply_that_is_none_is_an_error(channel: tuple[socket.socket, socket.socket], reply: bytes) -> None:
    ours, theirs = channel
    theirs.sendall(reply)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(OSError):
        order(ours, 60, do="listen")


def test_who_neither_reads_nor_replies_is_waited_for_no_longer_than_that(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, _ = channel
    with pytest.raises(TimeoutError):
        order(ours, 0.05, do="configure", files="x" * (8 << 20))


def test_a_reply_that_trickles_in_is_waited_for_no_longer_than_a_whole_one(
    channel: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = channel
    done = threading.Event()

    def trickle() -> None:
        theirs.sendall(struct.pack("!I", 4000))
        while not done.wait(0.01):
            theirs.sendall(b" ")

    thread = threading.Thread(target=trickle)
    thread.start()
    with pytest.raises(TimeoutError):
        order(ours, 0.2, do="listen")
    done.set()
    thread.join()


def test_the_formats_are_those_of_the_client_library() -> None:
    assert choose_encoder("")[1] == PLAIN
    assert choose_encoder("application/openmetrics-text")[1] == OPENMETRICS
    formats = [Question.metrics(openmetrics, gzip) for openmetrics in (False, True) for gzip in (False, True)]
    assert formats == [Question.TEXT, Question.TEXT_GZIP, Question.OPENMETRICS, Question.OPENMETRICS_GZIP]
