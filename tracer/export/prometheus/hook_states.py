"""How many hooks are attached, which are not, and whether somebody should see to these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from enum import StrEnum

from prometheus_client.metrics_core import GaugeMetricFamily

from tracer.model.hooks import Hook
from tracer.text import printable


class Missing(StrEnum):
    """Why a hook is not attached."""

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

    def fill(self, missing: GaugeMetricFamily, attached: GaugeMetricFamily, hooks: Collection[Hook]) -> None:
        """Add the samples of mkwrite_hook_attached and mkwrite_hooks_attached."""
        for labels in self.missing(hooks):
            missing.add_metric(labels, 0)
        for backend, number in self.attached(hooks).items():
            attached.add_metric([backend], number)

    def missing(self, hooks: Collection[Hook]) -> list[tuple[str, str, str, str]]:
        """Return the labels of mkwrite_hook_attached, of those that are not."""
        attached = {_labels(hook) for hook in hooks if hook.attached}
        found = {labels: self._missing(hook) for hook in hooks if (labels := _labels(hook)) not in attached}
        return [(*labels, reason.value) for labels, reason in found.items()]

    def attached(self, hooks: Iterable[Hook]) -> Counter[str]:
        """How many are attached, by backend."""
        return Counter(backend for _, _, backend in {_labels(hook) for hook in hooks if hook.attached})

    def _missing(self, hook: Hook) -> Missing:
        if not hook.denied:
            return Missing.KERNEL
        return Missing.LATE if self._enough else Missing.RIGHTS


def _labels(hook: Hook) -> tuple[str, str, str]:
    return printable(hook.name), printable(hook.function), hook.backend.value
