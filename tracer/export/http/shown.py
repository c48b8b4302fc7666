"""What the exporter shows besides metrics: gathered as it comes, and told as the page or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Final

from tracer.diagnosis.explainer import Explained, Explainer, Notified
from tracer.export.http import api
from tracer.export.http.groups import Groups
from tracer.export.http.history import History
from tracer.export.http.landing import page
from tracer.export.http.questions import Question
from tracer.export.http.view import View
from tracer.export.prometheus.risk_collector import RiskCollector
from tracer.latency.stuck import hooked_calls
from tracer.model.failures import Event, Failure
from tracer.model.snapshot import Snapshot

if TYPE_CHECKING:
    from tracer.session import Session

#: A call that lasts for so long is stuck, as ``mkwrite stuck`` has it.
_STUCK_NS: Final = 1_000_000_000
_BEFORE: Final = "Calls that began before the exporter did; `mkwrite stuck` looks for them."
_NO_CALLS: Final = "Calls: the tracepoint backend does not see them; `mkwrite stuck` looks for their stacks."
_NO_RISK: Final = "Mapped files were not looked at: start the exporter with --risk."


class Shown:
    """``note`` and ``add`` take in what happens; ``answer`` may be called from another thread."""

    def __init__(
        self,
        session: Session,
        first: Snapshot,
        version: str,
        words: Callable[[Explained | Notified], str],
        risk: RiskCollector | None = None,
        look_back: str = "",
    ) -> None:
        """``words`` writes a report for people; ``look_back`` as in ``View``."""
        self._session = session
        self._version = version
        self._words = words
        self._risk = risk
        self._look_back = look_back
        self._history = History(first)
        self._groups = Groups()

    @property
    def up(self) -> bool:
        """Whether the last reading succeeded."""
        return self._history.up

    @cached_property
    def _explainer(self) -> Explainer:
        """Made when it is wanted: the process that opens files for it has the rights of that moment."""
        return Explainer(self._session.has_ended, losses=self._session.file_losses)

    def note(self, events: Iterable[Event]) -> None:
        """Take in failures, and explain the first of each incident at once."""
        self._groups.note(self._explainer.explain(event for event in events if isinstance(event, Failure)))

    def add(self, snapshot: Snapshot | None) -> None:
        """Take in a reading, None for one that failed, and what was only counted since the last."""
        self._history.add(snapshot)
        if snapshot is not None:
            self._groups.note(self._explainer.repeats(self._session.bursts()))
            self._groups.note(self._explainer.updates())

    def answer(self, question: Question) -> str:
        """Return the page, or an answer in JSON."""
        if question is Question.PAGE:
            return page(self._view(question), self._version, self._words)
        return api.answer(question, self._view(question))

    def _view(self, question: Question) -> View:
        """Gather what the answer tells of: a look at the mapped files takes time."""
        past = self._history.past()
        traced = past.total.tracepoints is None
        risk, unseen = None, _NO_RISK
        if self._risk and question in (Question.PAGE, Question.RISK):
            try:
                risk = self._risk.seen()
            except Exception as error:
                unseen = f"The mapped files could not be looked at: {error}"
        return View(
            past,
            self._groups.all(),
            tuple(hooked_calls(self._session, _STUCK_NS)) if traced else (),
            (_BEFORE if traced else _NO_CALLS,),
            risk,
            () if risk else (unseen,),
            self._look_back,
        )
