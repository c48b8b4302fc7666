"""``make demo``'s program, run on a terminal as a user does: it shows what its guest did, and leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.demo import __main__ as demo

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT = 80, 24
#: How a program leaves the screen on which it showed what goes on.
LEAVE_SCREEN = "\x1b[?1049l"
CONTROLS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
#: The value may stand in a line of its own.
SAMPLE = re.compile(r"(mkwrite_\w+)\{(.*)\} ?(\S+)")
FIRST, AGAIN = 3 * 211, 3 * 97


@dataclass(frozen=True)
class Shown:
    """What came of a run: its exit code, what it showed live, the lines that it left, and what else it left."""

    code: int
    live: str
    lines: list[str]
    left: list[str]


def run_on_terminal(directory: str) -> tuple[int, str]:
    """Run the program with ``directory`` for its temporary files; its exit code and all that it wrote."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    environ |= {"TMPDIR": directory, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "tests.demo"], cwd=ROOT, stdin=its, stdout=its, stderr=its, env=environ
    ) as process:
        os.close(its)
        output = b"".join(until_closed(ours))
    os.close(ours)
    return process.returncode, output.decode(errors="replace")


def until_closed(terminal: int) -> Iterator[bytes]:
    """What comes, until nobody has the other side open: that is an error of a terminal (EIO)."""
    while True:
        try:
            yield os.read(terminal, 1 << 16)
        except OSError:
            return


def left_in(directory: str) -> list[str]:
    """Files there, and processes that were started with such: QEMU above all, whose end a kill does not wait for."""
    deadline = time.monotonic() + 60
    while (left := [*map(str, Path(directory).iterdir()), *processes_of(directory)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def processes_of(directory: str) -> Iterator[str]:
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            started = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(directory) in started:
            yield started.replace(b"\0", b" ").decode(errors="replace")[:200]


@pytest.fixture(scope="module")
def shown() -> Iterator[Shown]:
    with tempfile.TemporaryDirectory(prefix="demo-") as directory:
        code, output = run_on_terminal(directory)
        left = left_in(directory)
    assert code == 0, CONTROLS.sub("", output)
    live, _, rest = output.rpartition(LEAVE_SCREEN)
    yield Shown(code, CONTROLS.sub("", live), CONTROLS.sub("", rest).splitlines(), left)


def rows(shown: Shown) -> list[list[str]]:
    return [line.split() for line in shown.lines]


def test_the_one_failure_is_shown_with_victim_errno_and_file(shown: Shown) -> None:
    told = [row for row in rows(shown) if "/demo/ext4/db" in row]
    assert [(row[2], *row[4:]) for row in told] == [("database", "refused", "ENOSPC", "/demo/ext4/db")]
    assert re.search(r"last failures.*database.*ENOSPC", shown.live, re.DOTALL)


def test_every_count_is_what_the_workload_did(shown: Shown) -> None:
    counted = {tuple(row[1:]) for row in rows(shown) if row and re.fullmatch(r"\d+:\d+", row[0])}
    expected = {(f"/demo/{fs}", fs, "first_write", "user", "writable", str(FIRST)) for fs in ("ext4", "xfs", "btrfs")}
    expected |= {
        (f"/demo/{fs}", fs, "write_protect", "user", "writable", str(AGAIN)) for fs in ("ext4", "xfs", "btrfs")
    }
    assert counted == expected | {("/demo/ext4", "ext4", "first_write", "user", "sigbus", "1")}
    assert ["/demo/ext4", "ext4", "refused", "ENOSPC", "1"] in rows(shown)


def test_metrics_are_the_same_numbers_and_none_is_0(shown: Shown) -> None:
    text = "\n".join(shown.lines).replace("\n    ", "")
    samples = [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(n)) for name, labels, n in SAMPLE.findall(text)
    ]
    calls = {(of["fstype"], of["path"], of["outcome"]): n for name, of, n in samples if name == "mkwrite_calls_total"}
    expected = {(fs, "first_write", "writable"): FIRST for fs in ("ext4", "xfs", "btrfs")}
    expected |= {(fs, "write_protect", "writable"): AGAIN for fs in ("ext4", "xfs", "btrfs")}
    assert calls == expected | {("ext4", "first_write", "sigbus"): 1}
    failures = [
        (of["fstype"], of["class"], of["errno"], n) for name, of, n in samples if name == "mkwrite_failures_total"
    ]
    assert failures == [("ext4", "refused", "ENOSPC", 1)]
    assert len(samples) == 11 and all(number for _, _, number in samples)


def test_it_reads_well_on_a_small_terminal(shown: Shown) -> None:
    assert [line for line in shown.lines if len(line) > WIDTH] == []
    assert "lost: 0" in "\n".join(shown.lines)
    for noise in ("Traceback", "mke2fs", "Error", "warning"):
        assert noise not in shown.live + "\n".join(shown.lines)


def test_nothing_is_left_behind(shown: Shown) -> None:
    assert shown.left == []


def test_a_user_is_told_what_it_needs_before_anything_is_fetched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fetched(series: str) -> None:
        raise AssertionError(f"{series} was fetched")

    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(demo, "get_kernel", fetched)
    assert demo.main() == 1
    said = capsys.readouterr()
    assert not said.out
    assert [line.rstrip() for line in said.err.splitlines()] == [
        "The demonstration needs root, since BCC makes BPF maps while it compiles.",
        "Run it as root: sudo make demo",
    ]
