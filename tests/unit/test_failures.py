"""Refusals and the signals that follow them become one; what gets none is told all the same."""

from __future__ import annotations

import ctypes as ct
import errno
from dataclasses import replace
from typing import Any

import pytest
from failure_samples import REFUSED

from tracer.decode.failures import Join, _command, _command_cut
from tracer.diagnosis.classes import decide
from tracer.diagnosis.diagnose import Diagnosis
from tracer.diagnosis.explainer import Explained
from tracer.model.failures import Class, Code, Disposition, Fact, FailureSource, Signal
from tracer.model.host_state import HostState
from tracer.text import ELLIPSIS
from tracer.ui.sigbus import report
from tracer.ui.trace import errno as shown_errno

SIGNAL = Signal(Code.ADRERR, Disposition.CAUGHT, 0x7F0000003011)
BARE = replace(REFUSED, signal=None, address=0x7F0000003000)


def test_a_signal_makes_its_refusal_whole_with_the_exact_address() -> None:
    join = Join()
    join.refused(100, BARE)
    assert join
    assert join.signalled(100, SIGNAL) == replace(BARE, signal=SIGNAL, address=SIGNAL.address)
    assert not join


def test_a_signal_without_an_address_leaves_that_of_the_fault() -> None:
    join = Join()
    join.refused(100, BARE)
    whole = join.signalled(100, replace(SIGNAL, address=0))
    assert whole is not None
    assert whole.address == BARE.address


def test_a_signal_of_no_known_refusal_is_told_apart() -> None:
    join = Join()
    join.refused(100, BARE)
    assert join.signalled(0, SIGNAL) is None
    assert join.signalled(101, SIGNAL) is None
    assert join


def test_signals_in_any_order_find_their_own_refusals() -> None:
    join = Join()
    for number in range(1, 8):
        join.refused(number, replace(BARE, tid=number))
    for number in (3, 1, 7, 2, 6, 5, 4):
        whole = join.signalled(number, SIGNAL)
        assert whole is not None
        assert whole.tid == number
    assert not join


def test_a_refusal_whose_signal_never_comes_is_told_without_once_its_time_is_over() -> None:
    join = Join()
    join.refused(300, replace(BARE, tid=3))
    join.refused(100, replace(BARE, tid=1))
    join.refused(200, replace(BARE, tid=2))
    assert join.expired(100) == []
    assert [failure.tid for failure in join.expired(300)] == [1, 2]
    assert join.signalled(100, SIGNAL) is None
    assert [failure.tid for failure in join.expired(301)] == [3]
    assert not join


@pytest.mark.parametrize(
    ("changes", "name", "inferred"),
    [
        ({"errno": errno.EDQUOT, "kernel_error": errno.EDQUOT}, "EDQUOT", False),
        ({"fstype": "tmpfs", "source": FailureSource.FAULT}, "ENOSPC", True),
        ({"facts": Fact.READ_ONLY}, "EROFS", True),
        ({}, "", False),
    ],
)
def test_the_errno_of_a_failure_is_the_one_that_is_shown(changes: dict[str, Any], name: str, inferred: bool) -> None:
    failure = decide(replace(REFUSED, **changes))
    assert failure.errno_name == shown_errno(failure) == name
    assert bool(failure.verdict.inferred_from) == inferred


class Event(ct.Structure):
    """What an event has of the command line."""

    _fields_ = (("command_bytes", ct.c_uint32), ("command", ct.c_char * 512))


@pytest.mark.parametrize(
    ("raw", "shown", "cut"),
    [
        (b"postgres\0-D\0/srv\0", ("postgres", "-D", "/srv"), False),
        (b"postgres: writer" + b" " * 495, ("postgres: writer",), False),
        (b"postgres: writer" + b"\0" * 495, ("postgres: writer",), False),
        (b"a\0" + b"x" * 509, ("a", "x" * 509), True),
        (b"a\0" + b"x" * 508 + b"\0", ("a", "x" * 508), False),
        (b"", (), False),
    ],
)
def test_a_command_line_is_without_its_padding_and_says_when_it_was_cut(
    raw: bytes, shown: tuple[str, ...], cut: bool
) -> None:
    event = Event(len(raw))
    ct.memmove(ct.addressof(event) + Event.command.offset, raw, len(raw))
    assert (_command(event), _command_cut(event)) == (shown, cut)
    line = report(
        Explained(replace(REFUSED, command=shown, command_cut=cut), HostState(), Diagnosis(Class.OTHER, "c", "r")), 9999
    )
    assert (ELLIPSIS in line.plain, "\n\n" in line.plain) == (cut, False)
