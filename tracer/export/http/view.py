"""One moment of the exporter's host, which the page and JSON tell alike."""

from __future__ import annotations

from dataclasses import dataclass

from tracer.export.http.groups import Group
from tracer.export.http.history import Past
from tracer.latency.stuck import StuckCall
from tracer.mappings.risk import Forecasts
from tracer.mappings.survey import Survey
from tracer.model.asked import asked


@dataclass(frozen=True, slots=True)
class View:
    """``groups`` are the failures, the last first; ``stuck`` the calls that last; ``risk`` the last look, if any.

    ``stuck_unseen`` and ``risk_unseen`` say, in sentences, what was not looked at. ``look_back`` is the
    command that shows recorded failures, but for ``--since``; "" where there is no record.
    """

    past: Past
    groups: tuple[Group, ...] = ()
    stuck: tuple[StuckCall, ...] = ()
    stuck_unseen: tuple[str, ...] = ()
    risk: tuple[Survey, Forecasts] | None = None
    risk_unseen: tuple[str, ...] = ()
    look_back: str = ""

    @property
    def untold(self) -> int:
        """How many failures the kernel counted that are in no group."""
        counts = self.past.total.failures
        return max(0, sum(counts.values()) - sum(group.total for group in self.groups)) if asked(counts) else 0
