"""The command lines that pages and ``--help`` print run as printed: as root, in a shell, to a good end.

How long they run is not as printed: for seconds, where a person would wait for Ctrl-C or a minute. All run in one
guest, some at a time, each with a network of its own, since many serve on one port.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import bcrypt
import click
import pytest

from tests.command_lines import CHECKOUT, invocations, printed
from tests.examples.reports import EXPECTED
from tests.live.guest import ROOT
from tests.live.refusals import OFFSET, SIZE, VICTIM, Refusal, prepare
from tracer.cli.main import cli

pytestmark = pytest.mark.nightly

SECONDS: Final = 2
AT_A_TIME: Final = 3
#: What they are run in: the files that the lines name, and programs that a user has or has not.
HOME: Final = Path("/tmp/printed")
PROGRAMS: Final = HOME / "bin"
#: Lines that are run elsewhere, or stand for many.
NOT_RUN: Final = {
    "mkwrite COMMAND --help": "COMMAND is any of them",
    **{f"mkwrite {command}": "tests/examples runs it" for command in EXPECTED},
}
#: What stands for names of the reader's own.
NAMES: Final = {"MOUNTPOINT": str(ROOT / "ext4"), "FSTYPE": "ext4", "DIR": str(HOME)}
#: These end with the next failure.
WAIT_FOR_A_FAILURE: Final = ("mkwrite sigbus --once --json", "mkwrite trace -n 1 --json")
#: Under some limit files may ask for more than is left: those of the victims on the filesystem that is full.
EXITS: Final = {"risk": (0, 20)}
#: Lines with these may print nothing: it goes to a file, or nothing is what is looked for.
SILENT: Final = (" > ", " -o ", "select(", "mkwrite stuck -d")
#: The processes that the lines name.
PIDS: Final = (4242, 812, 193)
_SHELL: Final = 'ip link set lo up; cd "$0" && eval "$1"'


def as_run(text: str) -> str:
    """A line without sudo, in the foreground, with names filled in, and an end if it has none."""
    text = re.sub(r"^sudo ", "", text.removesuffix(" &"))
    for name, value in NAMES.items():
        text = re.sub(rf"\b{name}\b", value, text)
    if re.search(r" -d \S+", text):
        return re.sub(r" -d \S+", f" -d {SECONDS}s", text, count=1)
    if text in WAIT_FOR_A_FAILURE or re.search(r"\bmkwrite \w.* -- ", text) or "--once" in text:
        return text
    if "mkwrite risk" in text and "--watch" not in text:
        return text  # looks once
    return re.sub(r"\bmkwrite (\w+)", lambda match: _with_duration(match[1]), text, count=1)


def _with_duration(name: str) -> str:
    command = cli.get_command(click.Context(cli), name)
    ends = command is not None and any("-d" in parameter.opts for parameter in command.params)
    return f"mkwrite {name} -d {SECONDS}s" if ends else f"mkwrite {name}"


LINES: Final = list(
    dict.fromkeys(
        as_run(line.text) for line in printed() if line.code and invocations(line.text) and line.text not in NOT_RUN
    )
)


@contextmanager
def _failures() -> Iterator[None]:
    """While this is entered, a program is refused a page again and again."""
    file = prepare(Refusal("printed", "ext4", "ENOSPC", size=64))
    loop = f"while :; do echo | {VICTIM} store {file} {SIZE} {OFFSET}; sleep 1; done"
    with subprocess.Popen(["sh", "-c", loop], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def _process(pid: int) -> Iterator[None]:
    """A process of that number, as long as this is entered; one that is there already does, too."""
    if Path("/proc", str(pid)).exists():
        yield
        return
    Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
    with subprocess.Popen(["sleep", "infinity"]) as process:
        try:
            assert process.pid == pid
            yield
        finally:
            process.kill()


def _program(name: str, script: str) -> None:
    place = HOME / name
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)


def _furnish() -> None:
    """Make what the lines name."""
    PROGRAMS.mkdir(parents=True)
    _program("bin/mkwrite", f'PYTHONPATH={CHECKOUT} exec {sys.executable} -m tracer "$@"')
    _program("bin/flamegraph.pl", "cat")
    for name in ("server", "benchmark", "ledger"):
        _program(name, "echo $0 $*")
    (HOME / "Makefile").write_text("all:\n\ttrue\n")
    password = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    for place in (HOME, Path("/etc/mkwrite")):
        place.mkdir(exist_ok=True)
        (place / "web.yml").write_text(f"basic_auth_users: {{prometheus: '{password}'}}\n")
    for directory in ("/etc/bash_completion.d", "/usr/local/share/zsh/site-functions", "/root/.config/fish/completions",
                      "/var/lib/prometheus/node-exporter"):  # fmt: skip
        Path(directory).mkdir(parents=True, exist_ok=True)
    subprocess.run(["useradd", "--system", "mkwrite"], check=True)
    own = HOME / "cache"
    shutil.copytree(os.environ["CACHE_DIRECTORY"], own)
    for path in (own, *own.iterdir()):
        shutil.chown(path, "mkwrite", "mkwrite")


def _run(line: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "HOME": "/root"}
    if line.startswith("setpriv "):
        environment["CACHE_DIRECTORY"] = str(HOME / "cache")  # nobody trusts what is another's
    return subprocess.run(
        ["unshare", "--net", "bash", "-o", "pipefail", "-c", _SHELL, str(HOME), line],
        env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=1200, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, mounts: dict[str, Path]
) -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Each line that a selected test is about, as it ran or will have run."""
    tests = [
        item for item in request.session.items if isinstance(item, pytest.Function) and "runs" in item.fixturenames
    ]
    selected = [str(test.callspec.params["line"]) for test in tests]
    _furnish()
    with ExitStack() as stack:
        for pid in PIDS:
            stack.enter_context(_process(pid))
        stack.enter_context(_failures())
        pool = stack.enter_context(ThreadPoolExecutor(AT_A_TIME))
        yield {line: pool.submit(_run, line) for line in selected}


@pytest.mark.parametrize("line", LINES)
def test_a_printed_command_line_runs(line: str, runs: dict[str, Future[subprocess.CompletedProcess[str]]]) -> None:
    done = runs[line].result()
    (arguments, *_) = invocations(line)
    assert done.returncode in EXITS.get(arguments[0], (0,)), f"exit {done.returncode}: {done.stderr}{done.stdout}"
    assert "Traceback" not in done.stderr
    assert done.stdout or done.stderr or any(mark in line for mark in SILENT)


def test_every_line_is_run_or_is_known_to_run_elsewhere() -> None:
    texts = {line.text for line in printed() if line.code}
    assert NOT_RUN.keys() <= texts
    assert {*WAIT_FOR_A_FAILURE} <= texts
