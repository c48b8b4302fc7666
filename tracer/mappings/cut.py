"""Files that are mapped beyond their end: who touches that part is killed by SIGBUS. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from mmap import PAGESIZE

from tracer.mappings.risk import LimitedFilesystem
from tracer.text import counted, printable, size_text, some


@dataclass(frozen=True, slots=True)
class Cut:
    """A file that is mapped ``beyond`` bytes (whole pages) beyond its end, as far as ``who`` maps it."""

    path: str
    deleted: bool
    inode: int
    size: int
    beyond: int
    who: tuple[str, ...]
    place: LimitedFilesystem

    @property
    def sentence(self) -> str:
        """What is wrong, in words."""
        name = printable(self.path) + (" (deleted)" if self.deleted else "")
        pages = counted(self.beyond // PAGESIZE, "page")
        return f"{name}, mapped by {some(self.who)}, is mapped beyond its end ({size_text(self.size)}): {pages}."
