"""COMMAND has the caller's limit on locked memory, whatever the maps needed."""

from __future__ import annotations

import subprocess

import pytest

from tests.live.guest import command

pytestmark = [pytest.mark.native, pytest.mark.nightly, pytest.mark.here]


def test_a_command_inherits_no_raised_limit() -> None:
    script = 'ulimit -l 64; exec "$@"'
    counted = command("count", "--json", "--backend", "tracepoint", "-o", "/dev/null", "--", "sh", "-c", "ulimit -l")
    done = subprocess.run(["sh", "-c", script, "sh", *counted], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "64\n"), done.stderr
