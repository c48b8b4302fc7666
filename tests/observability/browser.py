"""Headless Chromium."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

#: Quiet, and without connections of its own.
CHROMIUM = [
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1800"),
]


def browse(profile: Path, *arguments: str) -> tuple[str, str]:
    """What Chromium prints, and what it complains of in the page. ``profile`` is a directory of its own."""
    done = subprocess.run(
        [*CHROMIUM, f"--user-data-dir={profile}", "--enable-logging=stderr", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def picture(address: str, path: Path) -> None:
    """What a page looks like, as a PNG."""
    with tempfile.TemporaryDirectory() as profile:
        browse(Path(profile), f"--screenshot={path}", address)
