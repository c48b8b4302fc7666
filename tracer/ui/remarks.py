"""What stands below a look at the host: what it could not see, and what else a reader has to know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.text import Text

from tracer.text import printable


def remarks(notes: Iterable[str], unseen: Iterable[str]) -> Iterator[Text]:
    """Yield a line for each note, then one for each thing that could not be seen."""
    for note in notes:
        yield Text(f"note: {printable(note)}", style="yellow")
    for sentence in unseen:
        yield Text(f"not seen: {printable(sentence)}", style="bold yellow")
