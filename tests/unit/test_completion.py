"""Tab completion runs nothing of the working directory, and changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from tracer.cli.main import cli
from tracer.host.mounts import Mounts
from tracer.kernel.symbols import Symbols

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


def completed(typed: str) -> list[str]:
    """What a tab offers behind the last option of ``typed``."""
    words = ["mkwrite", *typed.split(" ")]
    return [item.value for item in ShellComplete(cli, {}, "mkwrite", "").get_completions(words[1:-1], words[-1])]


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with some mounts, one of which a shell would run."""
    lines = [
        f"{number} 1 7:{number} / {place} rw - {fstype} none rw"
        for number, (fstype, place) in enumerate(
            [("proc", "/proc"), ("ext4", "/srv/db"), ("ext3", "/srv/old"), ("xfs", r"/a\040b"), ("xfs", "/$(id)")]
        )
    ]
    table = Mounts.parse("\n".join(lines).encode())
    monkeypatch.setattr(Mounts, "read", lambda: table)


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize("command", ["top", "sigbus", "export"])
def test_types_and_mount_points_are_those_of_the_machine(command: str) -> None:
    assert completed(f"{command} --fs ") == ["ext3", "ext4", "xfs"]
    assert completed(f"{command} --fs ext") == ["ext3", "ext4"]
    assert completed(f"{command} --fs pro") == ["proc"]
    assert completed(f"{command} --mount /srv/") == ["/srv/db", "/srv/old"]


@pytest.mark.usefixtures("mounted")
def test_handlers_are_the_kernels_or_those_of_what_is_mounted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Symbols, "handlers", lambda _: {"ext4_page_mkwrite": None, "fuse_page_mkwrite": None})
    assert completed("count --handler ext4_") == ["ext4_page_mkwrite"]
    monkeypatch.setattr(Symbols, "handlers", lambda _: {})
    assert completed("count --handler ") == ["ext4_page_mkwrite", "xfs_filemap_page_mkwrite"]


def test_what_cannot_be_read_offers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Mounts, "read", refused)
    monkeypatch.setattr(Symbols, "handlers", refused)
    for option in ("--mount /", "--handler ext4"):
        assert completed(f"top {option}") == []


def test_completing_opens_no_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracer"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={"_MKWRITE_COMPLETE": "bash_complete", "COMP_WORDS": f"mkwrite count -o {tmp_path}/made --js",
             "COMP_CWORD": "4"},
    )  # fmt: skip
    assert done.stdout == "plain,--json\n", done.stderr
    assert list(tmp_path.iterdir()) == []
