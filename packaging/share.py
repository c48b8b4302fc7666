"""What an install has beside the program: man pages, made of docs/, and tab completion for three shells.

They are made within a venv, in a tree like that of the root directory, from where links lead to them.
"""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

#: Makes man pages of Markdown.
CONVERTER: Final = "lowdown"
_MANUAL: Final = "usr/local/share/man/man1"
_COMPLETIONS: Final = {
    "bash": "usr/local/share/bash-completion/completions/mkwrite",
    "zsh": "usr/local/share/zsh/site-functions/_mkwrite",
    # It looks below /usr/local only where XDG_DATA_DIRS names that, as no login by ssh does.
    "fish": "etc/fish/completions/mkwrite.fish",
}
_DIRECTORIES: Final = (_MANUAL, *(str(Path(place).parent) for place in _COMPLETIONS.values()))


def tree(venv: Path) -> Path:
    """Where they are made."""
    return venv / "share" / "mkwrite"


def make(checkout: Path, venv: Path) -> None:
    """Make all of it below ``tree(venv)``; no man pages where there is no ``CONVERTER``.

    Raises CalledProcessError.
    """
    for shell, place in _COMPLETIONS.items():
        script = _output(str(venv / "bin" / "mkwrite"), "completion", shell)
        _write(tree(venv) / place, script)
    if shutil.which(CONVERTER):
        version = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]["version"]
        for name, text in _pages(checkout / "docs"):
            _write(tree(venv) / _MANUAL / f"{name}.1", _manual(name, text, version))


def files(venv: Path) -> Iterator[Path]:
    """What ``make`` made, relative to ``tree(venv)``."""
    top = tree(venv)
    return (path.relative_to(top) for place in _DIRECTORIES for path in sorted((top / place).glob("*")))


def links(root: Path, prefix: Path) -> Iterator[Path]:
    """The links below ``root`` that lead to an install below ``prefix``."""
    for place in _DIRECTORIES:
        for path in (root / place).glob("*mkwrite*"):
            if path.is_symlink() and path.readlink().is_relative_to(prefix):
                yield path


def tidy(root: Path) -> None:
    """Remove the directories that nothing is in, but for that of all manuals."""
    for place in _DIRECTORIES:
        for directory in (root / place, (root / place).parent):
            if directory.name != "man":
                with suppress(OSError):  # not empty, or not there
                    directory.rmdir()


def _pages(docs: Path) -> Iterator[tuple[str, str]]:
    """The name of each man page, and its text."""
    yield "mkwrite", (docs / "reference.md").read_text()
    for page in sorted((docs / "commands").glob("*.md")):
        yield f"mkwrite-{page.stem}", page.read_text()


def _manual(name: str, text: str, version: str) -> str:
    """A man page of Markdown whose title is left out, since it is in the header, so that sections begin with ##."""
    _title, text = text.split("\n", 1)
    text = text.replace(f"`{name.replace('-', ' ')}` - ", f"{name} - ", 1)
    said = {"title": name, "section": "1", "source": f"mkwrite {version}", "shiftheadinglevelby": "-1"}
    options = [word for key, value in said.items() for word in ("-M", f"{key}={value}")]
    made = _output(CONVERTER, "-s", "-Tman", "--nroff-nolinks", *options, text=text)
    # What lowdown 1.0 (Debian 12) does not do: a font that terminals have, and no backslash before a | of a table.
    return made.replace("\\fC", "\\fB").replace("\\e|", "|")


def _output(*command: str, text: str | None = None) -> str:
    return subprocess.run(command, input=text, capture_output=True, encoding="utf-8", check=True).stdout


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
