"""Tab completion runs nothing of the working directory, and changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from tracer.cli.main import cli

ROOT: Final = Path(__file__).parents[2]


def program(directory: Path, answer: str) -> None:
    """Make a program called mkwrite that completes with one word."""
    directory.mkdir()
    path = directory / "mkwrite"
    path.write_text(f"#!/bin/sh\ntouch {directory}/ran\necho plain,{answer}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("typed", ["mkwrite", "./mkwrite"])
def test_bash_asks_the_mkwrite_of_path_whatever_was_typed(tmp_path: Path, typed: str) -> None:
    program(tmp_path / "bin", "ours")
    program(tmp_path / "work", "theirs")
    script = CliRunner().invoke(cli, ["completion", "bash"]).stdout
    script += f'COMP_WORDS=({typed} ""); COMP_CWORD=1; _mkwrite_completion {typed}; echo "${{COMPREPLY[@]}}"\n'
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path / "work", capture_output=True, text=True, check=True,
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout == "ours\n"
    assert not (tmp_path / "work/ran").exists()


def test_completing_opens_no_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracer"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"_MKWRITE_COMPLETE": "bash_complete", "COMP_WORDS": f"mkwrite count -o {tmp_path}/made --js",
             "COMP_CWORD": "4"},
    )  # fmt: skip
    assert done.stdout == "plain,--json\n", done.stderr
    assert list(tmp_path.iterdir()) == []
