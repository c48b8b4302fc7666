"""BCC on this host: for which Python it is installed, and what installs it where it is not."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: What the tracer itself loads; it comes with BCC.
LIBRARIES: Final = ("libbpf.so.1",)

#: The oldest release that is tested: Debian 12's.
OLDEST: Final = (0, 26)

_INSTALL: Final = {
    "debian": "apt-get install python3-bpfcc",
    "ubuntu": "apt-get install python3-bpfcc",
    "fedora": "dnf install python3-bcc",
    "rhel": "dnf install python3-bcc",
    "centos": "dnf install python3-bcc",
    "arch": "pacman -S python-bcc",
    "suse": "zypper install python3-bcc",
    "opensuse": "zypper install python3-bcc",
    "opensuse-leap": "zypper install python3-bcc",
    "opensuse-tumbleweed": "zypper install python3-bcc",
    "alpine": "apk add py3-bcc",
}


@dataclass(frozen=True, slots=True)
class Bcc:
    """BCC as found: its version, and the interpreter that can import it.

    ``python`` is None where there is no such interpreter; ``place`` is then where some other Python has a
    BCC, None if there is no BCC at all. ``install`` is the command that installs it on this distribution, ""
    where that is not known.
    """

    version: str | None
    python: Path | None
    place: Path | None
    missing_libraries: tuple[str, ...]
    install: str

    @property
    def too_old(self) -> bool:
        """Whether it is known to be older than ``OLDEST``; a build from sources may not tell."""
        found = re.match(r"(\d+)\.(\d+)", self.version or "")
        return found is not None and (0, 0) < (int(found[1]), int(found[2])) < OLDEST


def parse_os_release(text: str) -> list[str]:
    """Return the distribution's id and those that it is like, the nearest first."""
    values = dict(re.findall(r"^(ID|ID_LIKE)=[\"']?([^\"'\n]*)[\"']?$", text, re.MULTILINE))
    return [*values.get("ID", "").split(), *values.get("ID_LIKE", "").split()]


def install_command(os_release: str) -> str:
    """Return the command that installs BCC's Python module on this distribution, "" for one not known."""
    return next((_INSTALL[name] for name in parse_os_release(os_release) if name in _INSTALL), "")


def read_bcc(os_release: str, root: Path = Path("/")) -> Bcc:
    """Find BCC without importing it, since that brings LLVM into the process.

    This interpreter's own comes first, then the one of the distribution's python3, which can compile for us.
    """
    version, python, place = None, None, None
    for interpreter, package in (*_own(), *_of_distribution(root)):
        found = package_version(package)
        if found is None:
            continue
        place = place or package.parent
        if interpreter is not None:
            version, python = found, interpreter
            break
    missing = tuple(name for name in LIBRARIES if not _loadable(name))
    return Bcc(version, python, None if python else place, missing, install_command(os_release))


def package_version(package: Path) -> str | None:
    """BCC's version, "unknown" if it does not tell; None if this is no BCC: other packages share the name."""
    if not (package / "libbcc.py").is_file():
        return None
    try:
        found = re.search(r"__version__\s*=\s*['\"]([^'\"]+)", (package / "version.py").read_text())
    except (OSError, ValueError):
        found = None
    return found[1] if found else "unknown"


def _own() -> list[tuple[Path | None, Path]]:
    """Return the packages called bcc that this interpreter would import."""
    try:
        spec = importlib.util.find_spec("bcc")
    except (ImportError, ValueError):
        spec = None
    places = spec.submodule_search_locations if spec else None
    return [(Path(sys.executable), Path(place)) for place in places or ()]


def _of_distribution(root: Path) -> list[tuple[Path | None, Path]]:
    """Return the packages called bcc of the distribution's Pythons; only those of python3 have an interpreter."""
    python3 = root / "usr/bin/python3"
    # Debian's lib/python3 serves every version, lib/python3.13 only that one.
    served = {"python3", python3.resolve().name} if python3.exists() else set()
    packages = sorted((root / "usr").glob("lib*/python3*/*-packages/bcc"))
    return [(python3 if package.parents[1].name in served else None, package) for package in packages]


def _loadable(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
