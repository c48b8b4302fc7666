"""The command lines of mkwrite that the pages and ``--help`` print: found, taken apart as a shell would, parsed dry."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from tracer.cli.main import COMMANDS, cli

CHECKOUT: Final = Path(__file__).resolve().parents[1]
_FENCE: Final = "```"
_INDENT: Final = "    "
#: mkwrite as a word, not as a part of mkwrite_calls_total, mkwrite-exporter, mkwrite.prom or a path.
_NAMED: Final = re.compile(r"(?<![\w/.=-])mkwrite(?![\w/.:-])")
_SPAN: Final = re.compile(r"`(mkwrite [^`]+)`")
#: What is printed behind a command, at least two spaces apart, says what it is for.
_REMARK: Final = re.compile(r"(?: {2,}|\s#).*$")
_PROMPT: Final = re.compile(r"^[$#] ")
#: What ends a simple command, and what is followed by a file.
_ENDS: Final = frozenset({"|", "||", "&&", ";", "&"})
_REDIRECTIONS: Final = frozenset({">", ">>", "<"})
#: Commands that run the command behind them.
_WRAPPERS: Final = ("sudo", "setpriv")


@dataclass(frozen=True)
class Line:
    """A line in which mkwrite is named: where it is printed, and its text without prompt and remark.

    ``code``: it stands in a block of code; else within a sentence, which may leave out what is meant anyway.
    """

    where: str
    text: str
    code: bool = True

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def pages() -> list[Path]:
    """Every page for users."""
    return [
        CHECKOUT / "README.md",
        *sorted((CHECKOUT / "docs").rglob("*.md")),
        *sorted((CHECKOUT / "dashboards").glob("*.md")),
    ]


def printed() -> Iterator[Line]:
    """Every line of the pages, and of each ``--help``, in which mkwrite is named as a command would be."""
    for page in pages():
        yield from on_page(page)
    for name in ("", *COMMANDS):
        command = cli.get_command(click.Context(cli), name) if name else cli
        assert command is not None
        for text in (command.epilog or "").splitlines():
            if _NAMED.search(text):
                yield Line(f"mkwrite {name} --help".replace("  ", " "), _REMARK.sub("", text.strip()))


def on_page(page: Path) -> Iterator[Line]:
    """The lines of one page: from blocks of code, but for the synopses, and from spans of code."""
    where = str(page.relative_to(CHECKOUT))
    for heading, text in _blocks(page.read_text()):
        if heading != "Synopsis" and _NAMED.search(text):
            yield Line(where, _REMARK.sub("", text))
    for span in _SPAN.findall(re.sub(r"\s*\n\s*", " ", _prose(page.read_text()))):
        yield Line(where, span, code=False)


def synopses(page: Path) -> Iterator[str]:
    """The synopses of a page, each in one line."""
    lines = [text for heading, text in _blocks(page.read_text()) if heading == "Synopsis"]
    return (f"mkwrite {text}" for text in " ".join(lines).split("mkwrite ")[1:])


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """The lines of a page's blocks of code, without prompts, joined where continued, each with its heading."""
    fenced, heading, begun = False, "", ""
    for line in text.splitlines():
        if line.startswith(_FENCE):
            fenced = not fenced
        elif fenced or line.startswith(_INDENT):
            begun += _PROMPT.sub("", line.strip())
            if begun.endswith(("\\", "|")):
                begun = begun.removesuffix("\\").rstrip() + " "
            else:
                yield heading, begun
                begun = ""
        elif line.startswith("#"):
            heading = line.lstrip("# ")


def _prose(text: str) -> str:
    """A page without its blocks of code."""
    lines = re.sub(rf"^{_FENCE}.*?^{_FENCE}$", "", text, flags=re.MULTILINE | re.DOTALL).splitlines()
    return "\n".join(line for line in lines if not line.startswith(_INDENT))


def invocations(text: str) -> list[list[str]]:
    """The arguments of each run of mkwrite in a line of a shell."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    commands: list[list[str]] = [[]]
    words = iter(lexer)
    for word in words:
        if word in _ENDS:
            commands.append([])
        elif word in _REDIRECTIONS:
            next(words)
        else:
            commands[-1].append(word)
    return [found for command in commands if (found := _of_mkwrite(command)) is not None]


def _of_mkwrite(command: list[str]) -> list[str] | None:
    """What follows mkwrite in a simple command, None where that is something else."""
    if command and command[0] in _WRAPPERS and "mkwrite" in command:
        command = command[command.index("mkwrite") :]
    return command[1:] if command and command[0] == "mkwrite" else None


def parse(arguments: list[str]) -> None:
    """Have click parse the arguments of mkwrite, and run nothing; raises click's errors.

    Files that are options' values are opened, as they would be: do this in a directory to throw away.
    """
    context = click.Context(cli, info_name="mkwrite")
    if not arguments or arguments[0].startswith("-"):
        cli.make_context("mkwrite", arguments)
        return
    name, command, rest = cli.resolve_command(context, arguments)
    assert command is not None
    with command.make_context(name, rest, parent=context):
        pass
