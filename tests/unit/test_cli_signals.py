"""No signal is lost, whenever it comes."""

from __future__ import annotations

import os
import re
import signal
import sys
from types import FrameType
from typing import Any

import pytest

from tracer.cli.child import run_command
from tracer.cli.export import Hangup
from tracer.cli.run import Stop


def hears(hangup: Hangup, instruction: int) -> tuple[bool, bool]:
    """Whether it hears a signal that comes at this instruction of its question, and whether there is such a one."""
    left = instruction

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code is not Hangup.heard.__code__:
            return None
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if left == 0:
            left = -1
            os.kill(os.getpid(), signal.SIGHUP)
        return trace

    sys.settrace(trace)
    try:
        heard = hangup.heard()
    finally:
        sys.settrace(None)
    return heard or hangup.heard(), left < 0


def test_a_hangup_is_heard_at_whatever_instruction_it_comes() -> None:
    with Hangup() as hangup:
        assert not hangup.heard()
        at = [hears(hangup, instruction) for instruction in range(1, 40)]
        assert not hangup.heard()
    assert [heard for heard, came in at] == [came for heard, came in at]
    assert sum(came for heard, came in at) > 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_command_is_started_keeps_it_from_being_run(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    with Stop() as stop:
        os.kill(os.getpid(), number)
        assert run_command(["echo", "ran"], lambda: None, stop) == 128 + number
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("before", [True, False], ids=["right before there is a process", "right after"])
def test_a_signal_while_the_command_is_started_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals, before: bool
) -> None:
    real = os.posix_spawnp

    def spawn(*arguments: Any, **more: Any) -> int:
        if before:
            os.kill(os.getpid(), number)
        pid = real(*arguments, **more)
        if not before:
            os.kill(os.getpid(), number)
        return pid

    monkeypatch.setattr(os, "posix_spawnp", spawn)
    with Stop() as stop:
        assert run_command(["sleep", "600"], lambda: None, stop) == 128 + number
        assert not stop.requested


def test_a_command_has_the_signals_of_its_caller(capfd: pytest.CaptureFixture[str]) -> None:
    """None is blocked, and SIGPIPE, which Python ignores, is not ignored."""
    with Stop() as stop:
        assert run_command(["grep", "^Sig[BI]", "/proc/self/status"], lambda: None, stop) == 0
    found = dict(re.findall(r"^Sig(\w+):\s+(\w+)$", capfd.readouterr().out, re.MULTILINE))
    assert int(found["Blk"], 16) == 0
    assert int(found["Ign"], 16) >> (signal.SIGPIPE - 1) & 1 == 0
