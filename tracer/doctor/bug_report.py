"""What doctor found, for a bug report that anybody may read: nothing names this host, its users, or their files."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path
from typing import Any, Final

from tracer.doctor.checkup import Checkup
from tracer.kernel.parsing import parse_distribution

#: Directories whose names say nothing of who uses the host.
_COMMON: Final = ("/usr/bin", "/usr/lib", "/usr/include", "/sys", "/proc", "/lib", "/etc/os-release", "/boot")
_HARMLESS: Final = {"root", "localhost", "nobody", "mkwrite", "debian", "ubuntu", "fedora"}
_PATH: Final = re.compile(r"(?<![\w.])(?:~|/)[^\s,;:()'\"]+")


def report_text(report: Checkup, version: str) -> str:
    """Markdown to paste. ``version`` is mkwrite's."""
    facts: dict[str, Any] = {
        "mkwrite": version,
        "python": platform.python_version(),
        "distribution": parse_distribution(_os_release()),
        **report.to_dict(),
    }
    return f"```json\n{without_names(json.dumps(facts, indent=1))}\n```"


def without_names(text: str) -> str:
    """``text`` with paths that only this host has, and its own and its users' names, taken out."""
    text = _PATH.sub(lambda found: found[0] if found[0].startswith(_COMMON) else "<path>", text)
    for name in sorted(_names(), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "<name>", text)
    return text


def _names() -> set[str]:
    """Return the host's name with and without its domain, and the user's; too short ones would be anywhere."""
    host = os.uname().nodename
    users = {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")}
    return {name for name in {host, host.partition(".")[0], *users} - _HARMLESS if len(name) > 2}


def _os_release() -> str:
    try:
        return Path("/etc/os-release").read_text(errors="replace")
    except OSError:
        return ""
