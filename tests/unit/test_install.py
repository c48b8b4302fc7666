"""What is installed is whole, and runs nothing but itself: a checkout that works says nothing of that."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Names of modules that mkwrite imports, and those that Python imports by itself.
MODULES = ("bcc", "click", "ctypes", "json", "re", "rich", "sitecustomize", "tracer", "usercustomize")
#: All that it may open: programs, libraries and settings of the system, and the kernel's files.
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/opt", "/proc", "/sys", "/dev")


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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What ``make install`` makes, with a umask that would let everybody write."""
    place = tmp_path_factory.mktemp("installed")
    with pytest.MonkeyPatch.context() as patch:
        installer = runpy.run_path(str(ROOT / "packaging" / "install.py"))["install"]
        for name, path in (("LINK", "link"), ("UNIT", "unit"), ("_SYSTEMD", "none"), ("ROOT", "root")):
            patch.setitem(installer.__globals__, name, place / path)
        before = os.umask(0)
        try:
            installer(place / "mkwrite", ())
        finally:
            os.umask(before)
    yield place


@pytest.fixture
def evil(tmp_path: Path) -> Path:
    """A directory with files in the place of others', each of which would end what uses it."""
    directory = tmp_path / "evil"
    (directory / "linux").mkdir(parents=True)
    (directory / "linux/types.h").write_text("#error another's header\n")
    for name in MODULES:
        (directory / f"{name}.py").write_text("raise SystemExit(99)\n")
    return directory


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nobody_else_may_write_to_what_is_installed(installed: Path) -> None:
    found = [
        path for path in (installed / "mkwrite").rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022
    ]
    assert found == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    "command",
    # What other processes have mapped, maps looks at, wherever it lies.
    ["count --backend tracepoint -d 10ms", "doctor", "export --once --backend tracepoint", f"maps --pid {os.getpid()}"],
)
def test_the_command_opens_nothing_of_the_working_directory(
    installed: Path, evil: Path, tmp_path: Path, command: str
) -> None:
    """With PYTHONPATH as it is left by ``PYTHONPATH=$PYTHONPATH:more``: an empty part is the working directory."""
    cache, trace = tmp_path / "cache", tmp_path / "trace"
    done = subprocess.run(
        ["strace", "-f", "-y", "-e", "trace=%file", "-o", trace, installed / "link", *command.split()],
        env={"PATH": f"{evil}:{os.environ['PATH']}", "PYTHONPATH": f":{evil}", "CACHE_DIRECTORY": str(cache)},
        cwd=evil, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 28), done.stderr  # 28: another process may not be looked at
    text = trace.read_text()
    opened = re.findall(r"\b(?:open|openat|openat2|creat)\(.*= \d+<(.*)>$", text, re.MULTILINE)
    # Where paths of others begin; where the C library asks systemd for a user that is in no file (nss-systemd(8)).
    opened = [name for name in opened if name not in ("/", "/run")]
    opened += re.findall(r"\bexecve\(\"(.*?)\".* = 0$", text, re.MULTILINE)
    allowed = (*SYSTEM, installed, cache)
    assert [name for name in opened if not any(Path(name).is_relative_to(place) for place in allowed)] == []
    assert f'"{evil}' not in re.sub(r"\bgetcwd\(.*", "", text)
