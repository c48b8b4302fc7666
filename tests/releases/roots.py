"""Root file systems of Debian releases, and wheels for their Python, kept beside the kernels."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.vm.archive import mirrors
from tests.vm.kernels import cache_dir

#: What ``make install`` needs, and what a guest needs to have a filesystem.
PACKAGES = (
    *("python3-bpfcc", "python3-venv", "make", "e2fsprogs", "mount"),
    # What its man pages are made with and looked at, and what loads its completion.
    *("lowdown", "mandoc", "bash-completion"),
)
#: Where ``make install`` puts it.
PREFIX = Path("/opt/mkwrite")
CHECKOUT = Path(__file__).resolve().parents[2]


def root(suite: str) -> Path:
    """The root file system of a suite, made by mmdebstrap where it is not there yet."""

    def make(new: Path) -> None:
        _run("mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "--format=directory", suite,
             str(new), mirrors()[0])  # fmt: skip

    return _cached(cache_dir().parent / "roots" / suite, PACKAGES, make)


def wheels(place: Path) -> Path:
    """A directory of wheels: what mkwrite needs to be built and to run under the Python of a root file system.

    pip runs here and knows this machine's package indexes.
    """
    version = _run("chroot", str(place), "python3", "-c", "import sys; print('%d%d' % sys.version_info[:2])").strip()
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    needed = (*project["project"]["dependencies"], *project["build-system"]["requires"])

    def make(new: Path) -> None:
        platforms = [f"--platform={name}" for name in ("manylinux_2_28_x86_64", "manylinux2014_x86_64", "any")]
        abis = [f"--abi={name}" for name in (f"cp{version}", "abi3", "none")]
        _run(sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--implementation=cp",
             f"--python-version={version}", *abis, *platforms, "-d", str(new), *needed)  # fmt: skip

    return _cached(cache_dir().parent / "wheels" / f"cp{version}", needed, make)


def install(place: Path) -> None:
    """Build the checkout's wheel, and install it into the root's own venv."""
    shutil.rmtree(place / PREFIX.relative_to("/"), ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=place / "var" / "tmp") as directory:
        shutil.copytree(wheels(place), directory, dirs_exist_ok=True)
        _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", directory, str(CHECKOUT))
        (wheel,) = Path(directory).glob("mkwrite-*.whl")
        found = f"/var/tmp/{Path(directory).name}"
        _run("chroot", str(place), "python3", "-m", "venv", "--system-site-packages", str(PREFIX))
        _run("chroot", str(place), f"{PREFIX}/bin/pip", "install", "-q", "--no-index", f"--find-links={found}",
             f"{found}/{wheel.name}")  # fmt: skip


def _cached(place: Path, contents: Sequence[str], make: Callable[[Path], None]) -> Path:
    """A directory of the cache; ``make`` makes it at the path it is given, if it is not there with these contents."""
    listed = place.with_name(f".{place.name}.contents")
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_name(f".{place.name}.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = "\n".join(contents)
        if not place.is_dir() or not listed.exists() or listed.read_text() != wanted:
            new = place.with_name(f".new-{place.name}")
            for old in (place, new):
                shutil.rmtree(old, ignore_errors=True)
            make(new)
            new.rename(place)
            listed.write_text(wanted)
    return place


def _run(*command: str) -> str:
    """A command that must succeed; what it printed."""
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8"}
    )
    if done.returncode:
        raise OSError(f"{' '.join(command[:4])} ... failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
