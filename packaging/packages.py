"""What an install needs of the distribution: Python's venv, BCC, and what makes man pages."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import share

from tracer.kernel.libraries import read_bcc

_OS_RELEASE: Final = Path("/etc/os-release")


class Failure(Exception):
    """The install cannot go on: what is wrong, and what to do about it."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"mkwrite: {problem}\n{cure}")


def get_packages(packages: Sequence[str]) -> None:
    """Have apt install what this Python lacks, where there is apt."""
    if not (lacking := _lacking()):
        return
    bcc = read_bcc(_OS_RELEASE.read_text() if _OS_RELEASE.is_file() else "")
    if not shutil.which("apt-get"):
        raise Failure(
            f"{sys.executable} lacks {lacking}, and this machine has no apt to get it.",
            f"Install it with this machine's package manager ({bcc.install or 'often python3-bcc'}; python3-venv where "
            "that is apart), then run make install again.",
        )
    if refusal := _apt(packages):
        raise Failure(
            f"apt-get could not install {' '.join(packages)}: {refusal}",
            "Mend that (is this machine online?), then run make install again.",
        )
    if lacking := _lacking():
        raise Failure(
            f"{sys.executable} still lacks {lacking}.",
            "Use the Python that the packages are for (make install PYTHON=/usr/bin/python3), or get them anew: "
            f"apt-get install --reinstall {' '.join(packages)}",
        )


def get_converter(packages: Sequence[str]) -> None:
    """Have apt install what makes man pages; an install goes on without them."""
    if not packages or shutil.which(share.CONVERTER):
        return
    refusal = _apt(packages) if shutil.which("apt-get") else "this machine has no apt"
    if not shutil.which(share.CONVERTER):
        print(
            f"mkwrite: no man pages, since {share.CONVERTER}, which makes them, is missing: {refusal}.\n"
            "Install it, then run make install again; mkwrite help COMMAND does without.",
            file=sys.stderr,
        )


def _apt(packages: Sequence[str]) -> str:
    """Have apt install packages; "", or why it could not."""
    print("Installing packages:", *packages, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "-q", "update", env=environment)  # an index that cannot be had is no matter where others suffice
    done = run("apt-get", "-q", "install", "-y", "--no-install-recommends", *packages, env=environment)
    return said(done.stderr, "E:") if done.returncode else ""


def _lacking() -> str:
    """What of venv and BCC this Python has not, nor may have from the distribution's; "" where it has both."""
    importlib.invalidate_caches()
    lacking = [] if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv") else ["venv"]
    if read_bcc("").python is None:
        lacking.append("BCC")
    return " and ".join(lacking)


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; what it says is for the case that it fails."""
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def said(output: str, mark: str = "") -> str:
    """The last line that a program said, of those that begin with ``mark`` if any does."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    marked = [line.removeprefix(mark).strip() for line in lines if line.startswith(mark)]
    return (marked or lines or ["it did not say why"])[-1]
