"""What a view shows on a console, and names that try to disturb it."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console, RenderableType

HOSTILE = "a\x1b[31m\nb[red]\u202ec\udcff"
ESCAPED = r"a\x1b[31m\x0ab[red]\u202ec\xff"


def render(view: RenderableType, width: int = 200, height: int | None = None, colours: bool = False) -> list[str]:
    """The lines of ``view`` on a console as the command line has it, checked to keep to the width."""
    console = Console(
        width=width,
        height=height,
        markup=False,
        highlight=False,
        emoji=False,
        force_terminal=colours,
        _environ={},
    )
    with console.capture() as capture:
        console.print(view, height=height)
    lines = capture.get().splitlines()
    if not colours:
        assert max((cell_len(line) for line in lines), default=0) <= width
        assert all(line.isprintable() for line in lines)
    return lines
