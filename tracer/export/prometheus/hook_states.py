"""Which hooks are attached, as labels and 0 or 1; and whether somebody should see to those that are not."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

from tracer.model.hooks import Hook
from tracer.text import printable


class Missing(StrEnum):
    """Why a hook is not attached."""

    #: It is.
    NOT = ""
    #: What this exporter was started with does not suffice: whoever runs it has chosen so.
    RIGHTS = "rights"
    #: Its module came when the exporter had given up the rights that would have sufficed: a restart helps.
    LATE = "late"
    #: The kernel refused it.
    KERNEL = "kernel"


class HookStates:
    """Remembers whether the rights sufficed for every hook at first, before they were given up."""

    def __init__(self) -> None:
        self._enough: bool | None = None

    def note(self, hooks: Iterable[Hook]) -> None:
        """Those of each reading, the first one above all."""
        if self._enough is None:
            self._enough = not any(hook.denied for hook in hooks)

    def states(self, hooks: Collection[Hook]) -> dict[tuple[str, str, str, str], int]:
        """0 or 1 by the labels of mkwrite_hook_attached."""
        attached = {_labels(hook) for hook in hooks if hook.attached}
        states = {(*labels, Missing.NOT.value): 1 for labels in attached}
        for hook in hooks:
            if (labels := _labels(hook)) not in attached:
                states[*labels, self._missing(hook).value] = 0
        return states

    def _missing(self, hook: Hook) -> Missing:
        if not hook.denied:
            return Missing.KERNEL
        return Missing.LATE if self._enough else Missing.RIGHTS


def _labels(hook: Hook) -> tuple[str, str, str]:
    return printable(hook.name), printable(hook.function), hook.backend.value
