"""The command line on a terminal: the live screen, its keys, Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(Path(__file__).with_name("fake_session.py"))]

ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"


class Screen:
    """A program on a terminal of its own."""

    def __init__(
        self, *arguments: str, program: Sequence[str] = PROGRAM, columns: int = 80, rows: int = 24, **more: str
    ) -> None:
        self._master, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.settings = termios.tcgetattr(terminal)
        self._terminal = terminal
        environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *program, *arguments],
            env={**environment, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **more},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
        )
        self.text = ""

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read until ``text`` has come so many times."""
        until = time.monotonic() + 120
        while self.text.count(text) < times:
            assert time.monotonic() < until, self.text
            self._read(0.5)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self) -> int:
        """The exit code; the terminal must be as it was."""
        until = time.monotonic() + 120
        while self.process.poll() is None:
            assert time.monotonic() < until, self.text
            self._read(0.1)
        self._read(0.1)
        assert termios.tcgetattr(self._terminal) == self.settings
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        while select.select([self._master], [], [], seconds)[0]:
            self.text += os.read(self._master, 65536).decode(errors="replace")
            seconds = 0

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._terminal)


@pytest.fixture
def screens() -> Iterator[list[Screen]]:
    """Screens to be closed in the end."""
    opened: list[Screen] = []
    yield opened
    for screen in opened:
        screen.close()


def test_top_has_a_screen_of_its_own_obeys_its_keys_and_leaves_a_summary(screens: list[Screen]) -> None:
    screens.append(screen := Screen("top", "-i", "0.1"))
    screen.wait_for("sort (calls)", 2)
    assert ENTER_SCREEN in screen.text
    screen.press("s")
    screen.wait_for("sort (p50)")
    screen.press("p")
    screen.wait_for("p go on")
    screen.press("p")
    screen.wait_for("p pause", 5)
    screen.press("q")
    assert screen.end() == 0
    assert SHOW_CURSOR in screen.text[screen.text.rindex(HIDE_CURSOR) :]
    summary = screen.text[screen.text.index(LEAVE_SCREEN) :]
    assert "since start" in summary
    assert "lost: 0" in summary


def test_ctrl_z_gives_the_terminal_back_until_the_shell_lets_top_go_on(screens: list[Screen]) -> None:
    top = shlex.join([*PROGRAM, "top", "-i", "0.1"])
    shell = ("bash", "-mc", f"{top}; stty -a | grep -o -- '-*icanon'; fg")
    screens.append(screen := Screen(program=shell))
    screen.wait_for("sort (calls)", 2)
    screen.press("\x1a")
    screen.wait_for("icanon")
    assert "-icanon" not in screen.text
    assert screen.text.count(LEAVE_SCREEN) == 1
    screen.wait_for(ENTER_SCREEN, 2)
    seen = screen.text.count("sort (calls)")
    screen.wait_for("sort (calls)", seen + 2)
    screen.press("q")
    assert screen.end() == 0
    assert "since start" in screen.text[screen.text.rindex(LEAVE_SCREEN) :]


@pytest.mark.parametrize("command", ["top", "hist", "trace", "count"])
def test_ctrl_c_ends_a_command_in_good_order(screens: list[Screen], command: str, tmp_path: Path) -> None:
    mark = tmp_path / "watched"
    screens.append(screen := Screen(command, FAKE_MARK=str(mark)))
    while not mark.exists():
        time.sleep(0.02)
    screen.press("\x03")
    assert screen.end() == 0
    assert "lost: 0" in screen.text
    assert "Traceback" not in screen.text


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (5, 2), (20, 5), (300, 3)])
def test_a_terminal_of_odd_size_is_no_error(screens: list[Screen], columns: int, rows: int) -> None:
    screens.append(screen := Screen("top", "-i", "0.1", "-n", "2", columns=columns, rows=rows))
    assert screen.end() == 0
    assert "Traceback" not in screen.text


def test_ctrl_c_reaches_the_command_of_count_once(screens: list[Screen]) -> None:
    script = "trap 'echo got it' INT; echo ready; sleep 0.5; sleep 0.5; sleep 0.5; exit 5"
    screens.append(screen := Screen("count", "--", "sh", "-c", script))
    screen.wait_for("ready")
    screen.press("\x03")
    assert screen.end() == 5
    assert screen.text.count("got it") == 1
    assert "101 calls" in screen.text


def test_opening_a_session_shows_a_spinner_that_goes_away(screens: list[Screen]) -> None:
    screens.append(screen := Screen("hist", "-d", "10ms"))
    assert screen.end() == 0
    assert "attaching..." in screen.text
    assert "\x1b[2K" in screen.text[screen.text.rindex("attaching...") :]


def test_colours_are_left_out_where_they_are_not_wanted(screens: list[Screen]) -> None:
    screens.append(coloured := Screen("hist", "-d", "10ms"))
    screens.append(plain := Screen("hist", "-d", "10ms", NO_COLOR="1"))
    assert coloured.end() == plain.end() == 0
    assert "\x1b[32m█" in coloured.text
    assert "\x1b[32m" not in plain.text
    assert "█" in plain.text


def test_a_command_hears_that_the_terminal_is_gone() -> None:
    # Its keys' signals reach all processes of a terminal; that it is gone, the leader of the session alone.
    once = "functools.cache(lambda: print('waits', flush=True))"  # its signals are blocked then
    run = "import functools, sys; from tracer.cli.child import run_command; from tracer.cli.run import Stop; "
    run += f"sys.exit(run_command(['sleep', '60'], {once}, Stop()))"
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", run])
    said = b""
    while said != b"waits\r\n":  # all of it: the rest would be an error, once the terminal is gone
        said += os.read(terminal, 7)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
