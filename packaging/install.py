"""Install mkwrite on this machine, upgrade it, or take it away: what ``make install`` and ``make uninstall`` run.

An install is a venv of its own, PREFIX/venv.XXXXXXXX, built whole and tried before anything of a former one changes.
One rename, of the link in /usr/local/bin, then makes it the one that runs; what fails before or after is undone. Former
installs are removed last.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, NoReturn

CHECKOUT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT))

from tracer.kernel.libraries import read_bcc  # noqa: E402

LINK: Final = Path("/usr/local/bin/mkwrite")
SERVICE: Final = "mkwrite-exporter"
UNIT: Final = Path(f"/usr/local/lib/systemd/system/{SERVICE}.service")
CACHE: Final = Path("/var/cache/mkwrite")
_OS_RELEASE: Final = Path("/etc/os-release")
#: Exists while systemd runs (sd_booted(3)).
_SYSTEMD: Final = Path("/run/systemd/system")
_VENV: Final = "venv."


class Failure(Exception):
    """The install cannot go on: what is wrong, and what to do about it."""

    def __init__(self, problem: str, cure: str) -> None:
        super().__init__(f"mkwrite: {problem}\n{cure}")


def install(prefix: Path, packages: Sequence[str]) -> None:
    """Install this checkout below ``prefix``; ``packages`` are apt's, for where Python's venv or BCC is missing.

    Raises ``Failure`` and leaves a former install as it was where that cannot be done.
    """
    _check(prefix, "install")
    os.umask(0o022)  # root runs it: nobody else may write to it
    _get_packages(packages)
    with ExitStack() as undo:
        venv = _new_venv(prefix, undo)
        _switch(venv / "bin" / "mkwrite")
        undo.pop_all()
    for former in _installs(prefix):
        if former != venv:
            _remove(former)
    print("Installed. Try: mkwrite doctor; mkwrite top")


def uninstall(prefix: Path) -> None:
    """Remove what ``install`` made, and what was compiled; the packages of the distribution stay."""
    _check(prefix, "uninstall")
    if UNIT.exists():
        if _SYSTEMD.is_dir():
            _systemctl("disable", "-q", "--now", SERVICE)
        UNIT.unlink()
        for directory in (UNIT.parent, UNIT.parent.parent):
            with suppress(OSError):  # not empty
                directory.rmdir()
        if _SYSTEMD.is_dir():
            _systemctl("daemon-reload")
    for place in (LINK, CACHE, prefix):
        _remove(place)


def _check(prefix: Path, what: str) -> None:
    """Refuse what could not be done, or would harm others."""
    if os.geteuid() != 0:
        raise Failure(f"this needs root: it changes {prefix} and {LINK.parent}.", f"Run: sudo make {what}")
    if prefix.is_dir() and {*prefix.iterdir()} - {*_installs(prefix)}:
        raise Failure(
            f"{prefix} holds other things than mkwrite.",
            f"Name a directory that is mkwrite's alone: make {what} PREFIX=/opt/mkwrite",
        )
    if LINK.exists() and not LINK.is_symlink():
        raise Failure(
            f"{LINK} is there already, and is not of make install.", "Remove it, or what installed it, first."
        )


def _installs(prefix: Path) -> Iterator[Path]:
    """What belongs to installs below ``prefix``, which once was a venv itself."""
    itself = (prefix / "pyvenv.cfg").is_file() and (prefix / "bin" / "mkwrite").is_file()
    return (path for path in prefix.iterdir() if itself or path.name.startswith(_VENV))


def _get_packages(packages: Sequence[str]) -> None:
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
    print("Installing packages:", *packages, flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = _run("apt-get", "-q", *step, env=environment)
        # An index that cannot be had is no matter where the others suffice.
        if done.returncode and step != ["update"]:
            raise Failure(
                f"apt-get could not install {' '.join(packages)}: {_said(done.stderr, 'E:')}",
                "Mend that (is this machine online?), then run make install again.",
            )
    if lacking := _lacking():
        raise Failure(
            f"{sys.executable} still lacks {lacking}.",
            "Use the Python that the packages are for (make install PYTHON=/usr/bin/python3), or get them anew: "
            f"apt-get install --reinstall {' '.join(packages)}",
        )


def _lacking() -> str:
    """What of venv and BCC this Python has not, nor may have from the distribution's; "" where it has both."""
    importlib.invalidate_caches()
    lacking = [] if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv") else ["venv"]
    if read_bcc("").python is None:
        lacking.append("BCC")
    return " and ".join(lacking)


def _new_venv(prefix: Path, undo: ExitStack) -> Path:
    """A venv below ``prefix`` that has this checkout's mkwrite, and runs it."""
    if not prefix.is_dir():
        prefix.mkdir(parents=True)
        undo.callback(prefix.rmdir)
    venv = Path(tempfile.mkdtemp(prefix=_VENV, dir=prefix))
    undo.callback(shutil.rmtree, venv)
    venv.chmod(0o755)
    made = _run(sys.executable, "-I", "-m", "venv", "--system-site-packages", str(venv))
    if made.returncode:
        raise Failure(
            f"{sys.executable} could not make a venv: {_said(made.stderr or made.stdout)}",
            "Mend that, then run make install again.",
        )
    got = _run(str(venv / "bin" / "python"), "-I", "-m", "pip", "install", "-q", "--no-cache-dir", str(CHECKOUT))
    if got.returncode:
        project: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
        needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
        raise Failure(
            f"pip could not get what mkwrite is made of: {_said(got.stderr, 'ERROR:')}",
            "Mend that, then run make install again. Without a network, run where there is one, and the same Python: "
            f"pip download -d DIR {' '.join(map(repr, needed))}\n"
            "Copy DIR to this machine, then: make install PIP_NO_INDEX=1 PIP_FIND_LINKS=DIR",
        )
    _isolate(venv / "bin" / "mkwrite")
    tried = _run(str(venv / "bin" / "mkwrite"), "--version")
    if tried.returncode:
        raise Failure(
            f"what was installed does not run: {_said(tried.stderr)}",
            f"Nothing has changed. Is the checkout in {CHECKOUT} whole?",
        )
    return venv


def _isolate(script: Path) -> None:
    """Have Python's isolated mode run a script: neither a variable nor a directory may choose what root imports."""
    first, rest = script.read_text().split("\n", 1)
    script.write_text(f"{first} -I\n{rest}")


def _switch(program: Path) -> None:
    """Make ``program`` the one that runs, as a command and, where systemd runs, as the service; or keep the former."""
    with ExitStack() as undo:
        LINK.parent.mkdir(parents=True, exist_ok=True)
        if LINK.is_symlink():
            target = LINK.readlink()
            undo.callback(_replace, LINK, lambda new: new.symlink_to(target))
        else:
            undo.callback(LINK.unlink, missing_ok=True)
        _replace(LINK, lambda new: new.symlink_to(program))
        if _SYSTEMD.is_dir():
            _install_unit(undo)
        works = not _running() or not _systemctl("restart", SERVICE)
        if works:
            undo.pop_all()
    if not works:
        _systemctl("restart", SERVICE)
        raise Failure(
            f"{SERVICE} does not start with what was installed, so that the former install is back.",
            f"Look for the reason, and report it: journalctl -u {SERVICE}",
        )


def _install_unit(undo: ExitStack) -> None:
    """Put the unit in place."""
    undo.callback(_systemctl, "daemon-reload")
    if UNIT.is_file():
        text = UNIT.read_bytes()
        undo.callback(_replace, UNIT, lambda new: new.write_bytes(text))
    else:
        UNIT.parent.mkdir(parents=True, exist_ok=True)
        undo.callback(UNIT.unlink, missing_ok=True)
    _replace(UNIT, lambda new: shutil.copy(CHECKOUT / "packaging" / UNIT.name, new))
    _systemctl("daemon-reload")


def _running() -> bool:
    """Whether the service runs."""
    return _SYSTEMD.is_dir() and not _systemctl("is-active", "-q", SERVICE)


def _replace(place: Path, make: Callable[[Path], object]) -> None:
    """Replace a file or a link with a new one, which ``make`` makes at the path it is given, by one rename."""
    new = place.with_name(f".{place.name}.new")
    new.unlink(missing_ok=True)
    make(new)
    new.replace(place)


def _remove(place: Path) -> None:
    """Remove a file, a link or a directory, if it is there."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _systemctl(*arguments: str) -> int:
    """Run systemctl; its exit code."""
    return subprocess.run(("systemctl", *arguments), check=False).returncode


def _run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command; what it says is for the case that it fails."""
    return subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def _said(output: str, mark: str = "") -> str:
    """The last line that a program said, of those that begin with ``mark`` if any does."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    marked = [line.removeprefix(mark).strip() for line in lines if line.startswith(mark)]
    return (marked or lines or ["it did not say why"])[-1]


def _ended(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Do what is asked; say in two sentences why it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("install", "uninstall"))
    parser.add_argument("prefix", type=lambda given: Path(given).absolute())
    parser.add_argument("package", nargs="*", help="of apt, to install where Python's venv or BCC is missing")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    try:
        if options.what == "install":
            install(options.prefix, options.package)
        else:
            uninstall(options.prefix)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"mkwrite: {error.strerror}: {error.filename}\nMend that, then run make {options.what} again.",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("mkwrite: interrupted.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
