"""Pieces of HTML. Whatever comes from outside passes through ``escaped``."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from tracer.text import printable

#: Title, class and text of a cell.
Columns = list[tuple[str, str, Callable[[Any], str]]]


def escaped(raw: str) -> str:
    """Return text that is text in HTML, too, and harmless to look at."""
    return html.escape(printable(raw))


def preformatted(text: str) -> str:
    """Return lines as they are, each a block of its own, which a narrow screen wraps below its text."""
    lines = "".join(f"<span>{escaped(line) or '&nbsp;'}</span>" for line in text.split("\n"))
    return f"<pre>{lines}</pre>"


def moment(time_ns: int, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a moment of the wall clock in this host's time, to the second unless ``form`` says how."""
    return datetime.fromtimestamp(time_ns // 10**9).astimezone().strftime(form)


def section(title: str, name: str, content: str) -> str:
    """Return a section with a heading, which a link finds by its name."""
    return f'<section id="{name}"><h2>{title}</h2>\n{content}</section>'


def card(name: str, kind: str, title: Iterable[tuple[str, str]], more: str, body: str, *, is_open: bool = False) -> str:
    """Return what opens: parts of the title with their classes, a sentence that is always seen, and the body (HTML).

    A link to ``name`` opens it: a browser opens what hides the target of a link.
    """
    parts = "".join(f'<span class="{role}">{escaped(part)}</span>' for role, part in title if part)
    told = f'<span class="more">{escaped(more)}</span>' if more else ""
    summary = f"<summary>{parts}{told}</summary>"
    opened = " open" if is_open else ""
    return f'<details class="card {kind}"{opened}>{summary}\n<div id="{name}">{body}</div></details>\n'


def table(name: str, columns: Columns, rows: Sequence[Any], none: str) -> str:
    """``none`` is said instead of a table without rows. On a narrow screen each row is a card: cells know titles."""
    if not rows:
        return f'<p id="{name}" class="dim">{none}</p>'
    titles = "".join(f'<th scope="col" class="{kind}">{title}</th>' for title, kind, _ in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{kind}" data-title="{title}">{escaped(cell(row))}</td>' for title, kind, cell in columns)
        + "</tr>\n"
        for row in rows
    )
    return f'<table id="{name}"><thead><tr>{titles}</tr></thead>\n<tbody>{body}</tbody></table>'
