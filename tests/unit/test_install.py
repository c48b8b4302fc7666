"""What is installed is whole: a checkout that works says nothing of that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files(directory: Path, *patterns: str) -> set[str]:
    return {str(path.relative_to(directory)) for pattern in patterns for path in directory.rglob(pattern)}


def test_an_installed_package_has_all_that_the_checkout_has_and_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    installed = tmp_path / "tracer"
    assert files(ROOT / "tracer", "*.py") == files(installed, "*.py")
    assert files(ROOT / "bpf", "*.c", "*.h") == files(installed / "bpf", "*.c", "*.h")
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} >= {"tracer", "bin"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "bin" / "mkwrite"), "--help"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "sigbus" in done.stdout
