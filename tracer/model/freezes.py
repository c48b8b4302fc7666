"""Who froze a filesystem, and who thawed it, as types. No I/O, no BCC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tracer.model.calls import Filesystem
from tracer.model.failures import Actor


@dataclass(frozen=True, slots=True)
class Freeze:
    """The last freeze of a filesystem that was seen. Times are ns of CLOCK_REALTIME.

    ``by`` is None, and ``began_ns`` 0, where it was frozen before there were hooks; ``thawed_by`` is None, and
    ``thawed_ns`` 0, while it lasts.
    """

    began_ns: int
    by: Actor | None
    thawed_ns: int = 0
    thawed_by: Actor | None = None

    @property
    def lasts(self) -> bool:
        """Whether nobody was seen to thaw it."""
        return self.thawed_by is None


def by_device(freezes: Mapping[Filesystem, Freeze]) -> dict[int, Freeze]:
    """Return the freezes of the filesystems that have their device numbers now: those of the last generation."""
    return {filesystem.dev: freeze for filesystem, freeze in sorted(freezes.items(), key=lambda item: item[0])}
