"""Install mkwrite on this machine, upgrade it, or take it away: what ``make install`` and ``make uninstall`` run.

An install is a venv of its own, PREFIX/venv.XXXXXXXX, built whole and tried before anything of a former one changes.
One rename, of the link in /usr/local/bin, then makes it the one that runs; what fails before or after is undone. Former
installs are removed last.
"""

from __future__ import annotations

import argparse
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
sys.path[:0] = map(str, (CHECKOUT / "packaging", CHECKOUT))

import share  # noqa: E402
from apt import Failure, run, said  # noqa: E402
from packages import get_converter, get_packages  # noqa: E402

LINK: Final = Path("/usr/local/bin/mkwrite")
ROOT: Final = Path("/")
SERVICE: Final = "mkwrite-exporter"
UNIT: Final = Path(f"/usr/local/lib/systemd/system/{SERVICE}.service")
CACHE: Final = Path("/var/cache/mkwrite")
#: Exists while systemd runs (sd_booted(3)).
_SYSTEMD: Final = Path("/run/systemd/system")
_VENV: Final = "venv."


def install(prefix: Path, packages: Sequence[str], manual: Sequence[str] = ()) -> None:
    """Install this checkout below ``prefix``; ``packages`` are apt's, for where Python's venv or BCC is missing,
    ``manual`` those for where man pages cannot be made.

    Raises ``Failure`` and leaves a former install as it was where that cannot be done.
    """
    _check(prefix, "install")
    os.umask(0o022)  # root runs it: nobody else may write to it
    get_packages(packages)
    get_converter(manual)
    with ExitStack() as undo:
        venv = _new_venv(prefix, undo)
        _switch(venv)
        undo.pop_all()
    made = {ROOT / path for path in share.files(venv)}
    for place in share.links(ROOT, prefix):
        if place not in made:
            place.unlink()
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
    for place in (LINK, CACHE, *share.links(ROOT, prefix), prefix):
        _remove(place)
    share.tidy(ROOT)


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


def _new_venv(prefix: Path, undo: ExitStack) -> Path:
    """A venv below ``prefix`` that has this checkout's mkwrite, and runs it."""
    if not prefix.is_dir():
        prefix.mkdir(parents=True)
        undo.callback(prefix.rmdir)
    venv = Path(tempfile.mkdtemp(prefix=_VENV, dir=prefix))
    undo.callback(shutil.rmtree, venv)
    venv.chmod(0o755)
    made = run(sys.executable, "-I", "-m", "venv", "--system-site-packages", str(venv))
    if made.returncode:
        raise Failure(
            f"{sys.executable} could not make a venv: {said(made.stderr or made.stdout)}",
            "Mend that, then run make install again.",
        )
    got = run(str(venv / "bin" / "python"), "-I", "-m", "pip", "install", "-q", "--no-cache-dir", str(CHECKOUT))
    if got.returncode:
        project: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
        needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
        raise Failure(
            f"pip could not get what mkwrite is made of: {said(got.stderr, 'ERROR:')}",
            "Mend that, then run make install again. Without a network, run where there is one, and the same Python: "
            f"pip download -d DIR {' '.join(map(repr, needed))}\n"
            "Copy DIR to this machine, then: make install PIP_NO_INDEX=1 PIP_FIND_LINKS=DIR",
        )
    _isolate(venv / "bin" / "mkwrite")
    tried = run(str(venv / "bin" / "mkwrite"), "--version")
    if tried.returncode:
        raise Failure(
            f"what was installed does not run: {said(tried.stderr)}",
            f"Nothing has changed. Is the checkout in {CHECKOUT} whole?",
        )
    share.make(CHECKOUT, venv)
    return venv


def _isolate(script: Path) -> None:
    """Have Python's isolated mode run a script: neither a variable nor a directory may choose what root imports."""
    first, rest = script.read_text().split("\n", 1)
    script.write_text(f"{first} -I\n{rest}")


def _switch(venv: Path) -> None:
    """Make the program of ``venv`` the one that runs, as a command and (if it runs) the service; or keep the former."""
    with ExitStack() as undo:
        for path in share.files(venv):
            if not (ROOT / path).exists() or (ROOT / path).is_symlink():
                _link(ROOT / path, share.tree(venv) / path, undo)
        _link(LINK, venv / "bin" / "mkwrite", undo)
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


def _link(place: Path, target: Path, undo: ExitStack) -> None:
    """Have ``place`` lead to ``target``; the directories that it needs are made, and stay."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_symlink():
        former = place.readlink()
        undo.callback(_replace, place, lambda new: new.symlink_to(former))
    else:
        undo.callback(place.unlink, missing_ok=True)
    _replace(place, lambda new: new.symlink_to(target))


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


def _ended(number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    """Do what is asked; say in two sentences why it cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("install", "uninstall"))
    parser.add_argument("prefix", type=lambda given: Path(given).absolute())
    parser.add_argument("package", nargs="*", help="of apt, to install where Python's venv or BCC is missing")
    parser.add_argument("--manual", action="append", default=[], metavar="PACKAGE", help="for man pages, the same")
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _ended)
    try:
        if options.what == "install":
            install(options.prefix, options.package, options.manual)
        else:
            uninstall(options.prefix)
    except Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(
            f"mkwrite: {error.cmd[0]} failed: {said(error.stderr or '')}\nMend that, then run make install again.",
            file=sys.stderr,
        )
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
