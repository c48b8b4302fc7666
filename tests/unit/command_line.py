"""The command line with a made-up session: in this process, and as a program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tracer.cli.main import cli

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(Path(__file__).with_name("fake_session.py"))]
#: What is said once the hooks are on.
TRACING = "Tracing with the fentry backend; Ctrl-C ends.\n"
#: The same by trace without --slower.
FAILURES_ONLY = f"{TRACING.rstrip()} Failures only: --slower DURATION prints slow calls, too.\n"


def invoke(*arguments: str) -> Result:
    """Run the command line in this process; it must succeed."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def objects(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "", **more}


def start(*arguments: str, **more: str) -> subprocess.Popen[str]:
    """Start the program with a made-up session."""
    return subprocess.Popen(
        [*PROGRAM, *arguments],
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr; no traceback in any case."""
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err
    return process.returncode, out, err
