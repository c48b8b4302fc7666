"""Root file systems of Debian releases, kept beside the kernels, with mkwrite installed from this checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.vm.archive import mirrors
from tests.vm.kernels import cache_dir

#: What ``make install`` needs, and what a guest needs to have a filesystem.
PACKAGES = ("python3-bpfcc", "python3-venv", "e2fsprogs", "mount")
#: Where ``make install`` puts it.
PREFIX = Path("/opt/mkwrite")
CHECKOUT = Path(__file__).resolve().parents[2]


def root(suite: str) -> Path:
    """The root file system of a suite, made by mmdebstrap where it is not there yet."""
    place = cache_dir().parent / "roots" / suite
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".{suite}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_dir():
            new = place.with_name(f".new-{suite}")
            shutil.rmtree(new, ignore_errors=True)
            _run("mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "--format=directory", suite,
                 str(new), mirrors()[0])  # fmt: skip
            new.rename(place)
    return place


def install(place: Path) -> None:
    """Build the checkout's wheel and install it into the root's own venv, as ``make install`` does on a host.

    pip runs here and knows this machine's package indexes; what it fetched is installed by the root's Python.
    """
    version = _run("chroot", str(place), "python3", "-c", "import sys; print('%d%d' % sys.version_info[:2])").strip()
    shutil.rmtree(place / PREFIX.relative_to("/"), ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place / "var" / "tmp") as directory:
        _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", directory, str(CHECKOUT))
        (wheel,) = Path(directory).glob("*.whl")
        platforms = [f"--platform={name}" for name in ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "any")]
        abis = [f"--abi={name}" for name in (f"cp{version}", "abi3", "none")]
        _run(sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--implementation=cp",
             f"--python-version={version}", *abis, *platforms, "-d", directory, str(wheel))  # fmt: skip
        wheels = f"/var/tmp/{Path(directory).name}"
        _run("chroot", str(place), "python3", "-m", "venv", "--system-site-packages", str(PREFIX))
        _run("chroot", str(place), f"{PREFIX}/bin/pip", "install", "-q", "--no-index", f"--find-links={wheels}",
             f"{wheels}/{wheel.name}")  # fmt: skip


def _run(*command: str) -> str:
    """A command that must succeed; what it printed."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}
    )
    if done.returncode:
        raise OSError(f"{' '.join(command[:4])} ... failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
