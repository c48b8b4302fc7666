"""Packages of Debian and its kin: which are missing, how big they are, and getting them.

As a program it gets those that a target of make needs: apt.py TARGET PACKAGE...
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

_INSTALL: Final = ("install", "--no-install-recommends")
_SIZES: Final = re.compile(r"Need to get (?:\S+ \S+/)?(\S+ [kMG]?B) of archives|After this operation, (\S+ [kMG]?B) of")


class Failure(Exception):
    """It cannot go on: what is wrong, and what to do about it."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"mkwrite: {problem}\n{cure}")


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; what it says is for the case that it fails."""
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def said(output: str, mark: str = "") -> str:
    """The last line that a program said, of those that begin with ``mark`` if any does."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    marked = [line.removeprefix(mark).strip() for line in lines if line.startswith(mark)]
    return (marked or lines or ["it did not say why"])[-1]


def here() -> bool:
    """Whether this machine has apt."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-query"))


def get(packages: Sequence[str]) -> None:
    """Say which packages are installed and how big they are, then install them. Raises Failure."""
    _apt("-q", "update")  # an index that cannot be had is no matter where the others suffice
    print(f"Installing packages: {' '.join(packages)}{_size(packages)}", flush=True)
    done = _apt("-q", "-y", *_INSTALL, *packages)
    if done.returncode:
        raise Failure(
            f"apt-get could not install {' '.join(packages)}: {said(done.stderr, 'E:')}",
            "Mend that (is this machine online?), then run make again.",
        )


def _missing(packages: Sequence[str]) -> list[str]:
    """Those that are not installed, in order."""
    status = run("dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages).stdout.splitlines()
    return [package for package in packages if f"{package} installed" not in status]


def _size(packages: Sequence[str]) -> str:
    """What apt would fetch and unpack, with what they depend on; "" if it does not say."""
    plan = _apt("--assume-no", *_INSTALL, *packages).stdout
    found = {first or second: bool(first) for first, second in _SIZES.findall(plan)}
    sizes = [f"{size} {'to fetch' if fetched else 'on the disk'}" for size, fetched in found.items()]
    return f" ({', '.join(sizes)})" if sizes else ""


def _apt(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("apt-get", *arguments, env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"})


def main(target: str, packages: Sequence[str]) -> int:
    """Get what is missing, or say in two sentences why that cannot be done."""
    try:
        if not here():
            raise Failure(
                f"make {target} gets programs by apt, and this machine has none.",
                "Run it on Debian 12, Ubuntu 24.04 or newer: a container or a virtual machine will do. "
                "To trace this machine itself: make install",
            )
        missing = _missing(packages)
        if missing and os.geteuid() != 0:
            raise Failure(
                f"make {target} needs packages that are not installed.",
                f"Run: sudo apt-get install --no-install-recommends {' '.join(missing)}",
            )
        if missing:
            get(missing)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
