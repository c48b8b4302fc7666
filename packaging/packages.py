"""What an install needs of the distribution: Python's venv, BCC, and what makes man pages."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import apt
import share
from apt import Failure

from tracer.kernel.libraries import read_bcc

_OS_RELEASE: Final = Path("/etc/os-release")


def get_packages(packages: Sequence[str]) -> None:
    """Have apt install what this Python lacks, where there is apt."""
    if not (lacking := _lacking()):
        return
    bcc = read_bcc(_OS_RELEASE.read_text() if _OS_RELEASE.is_file() else "")
    if not apt.here():
        raise Failure(
            f"{sys.executable} lacks {lacking}, and this machine has no apt to get it.",
            f"Install it with this machine's package manager ({bcc.install or 'often python3-bcc'}; python3-venv where "
            "that is apart), then run make install again.",
        )
    apt.get(packages)
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
    try:
        if apt.here():
            apt.get(packages)
    except Failure as failure:
        print(failure, file=sys.stderr)
    if not shutil.which(share.CONVERTER):
        print(
            f"mkwrite: no man pages, since {share.CONVERTER}, which makes them, is missing.\n"
            "Install it, then run make install again; mkwrite help COMMAND does without.",
            file=sys.stderr,
        )


def _lacking() -> str:
    """What of venv and BCC this Python has not, nor may have from the distribution's; "" where it has both."""
    importlib.invalidate_caches()
    lacking = [] if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv") else ["venv"]
    if read_bcc("").python is None:
        lacking.append("BCC")
    return " and ".join(lacking)
