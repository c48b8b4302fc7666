"""What was counted in a minute: taken from the session's snapshots, added up, written as a frame, and read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import add
from typing import Any, Final, TypeVar

from tracer.export.json.records import exact, hook_dict, text
from tracer.model.asked import FAILURES, WAITS, asked
from tracer.model.calls import FaultPath, Initiator, Outcome, Series, WpOutcome
from tracer.model.failures import Class, FailureSeries
from tracer.model.histogram import BUCKETS, Histogram
from tracer.model.hooks import Backend, Hook, Loss
from tracer.model.snapshot import Snapshot, Throttled, Tracepoints
from tracer.model.waits import Wait, WaitSeries, WaitTime
from tracer.record.space import Risks, Spaces, risk_frame, risks_of, space_frame, spaces_of

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_Labels = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Minute:
    """What was counted from ``from_ns`` to ``time_ns`` by the wall clock of then; ``space`` and ``risk`` at its end."""

    from_ns: int
    time_ns: int
    counts: Snapshot
    space: Spaces = field(default_factory=dict)
    risk: Risks = field(default_factory=dict)

    @property
    def series(self) -> int:
        """How many series it has: what it takes of memory."""
        counts = self.counts
        some = sum(len(some) for some in (counts.failures, counts.waits) if asked(some))
        return len(counts.calls) + some + len(self.space) + len(self.risk)

    def __add__(self, later: Minute) -> Minute:
        space, risk = later.space or self.space, later.risk or self.risk
        return Minute(self.from_ns, later.time_ns, plus(self.counts, later.counts), space, risk)


def plus(one: Snapshot, more: Snapshot) -> Snapshot:
    """Two intervals' counts as one interval's: sums are exact, states are those at the end of ``more``."""
    tracepoints = more.tracepoints
    if one.tracepoints and more.tracepoints:
        tracepoints = Tracepoints(
            one.tracepoints.sigbus + more.tracepoints.sigbus,
            _sum(one.tracepoints.wp_faults, more.tracepoints.wp_faults, add),
            _sum(one.tracepoints.throttled, more.tracepoints.throttled, _throttled),
        )
    return replace(
        more,
        elapsed_ns=one.elapsed_ns + more.elapsed_ns,
        calls=_sum(one.calls, more.calls, Histogram.__add__),
        wp_faults=_sum(one.wp_faults, more.wp_faults, add),
        lost=_sum(one.lost, more.lost, add),
        failures=_sum(one.failures, more.failures, add) if asked(one.failures) and asked(more.failures) else FAILURES,
        waits=_sum(one.waits, more.waits, WaitTime.__add__) if asked(one.waits) and asked(more.waits) else WAITS,
        tracepoints=tracepoints,
    )


def _sum(one: Mapping[K, V], more: Mapping[K, V], together: Callable[[V, V], V]) -> dict[K, V]:
    total = dict(one)
    for key, value in more.items():
        total[key] = together(total[key], value) if key in total else value
    return total


def _throttled(one: Throttled, more: Throttled) -> Throttled:
    return Throttled(
        one.pauses + more.pauses, one.pause_ns + more.pause_ns, one.dirtied + more.dirtied, more.mountpoint
    )


class Counted:
    """What a session has counted since it was last asked, whoever else takes its snapshots; for several threads.

    It has to see each snapshot (``see``): what makes room in the kernel is in no later one.
    """

    def __init__(self, first: Snapshot) -> None:
        self._lock = threading.Lock()
        self._base = self._last = first
        self._from_ns = time.time_ns()
        self._delta: Snapshot | None = None

    def see(self, snapshot: Snapshot) -> None:
        """Take in a snapshot."""
        with self._lock:
            self._last = snapshot
            if snapshot.gone or snapshot.gone_failures or snapshot.gone_waits:
                self._book()

    def take(self, step_ns: int = 0) -> Minute:
        """Return what came since this was last asked, up to the last snapshot.

        ``step_ns``: by how much the wall clock was set forward just now; the minute ends by what it showed before.
        """
        with self._lock:
            self._book()
            assert self._delta is not None
            now_ns = time.time_ns()
            minute = Minute(self._from_ns, now_ns - step_ns, self._delta)
            self._from_ns, self._delta = now_ns, None
            return minute

    def _book(self) -> None:
        last = self._last
        new = last.since(self._base)
        self._delta = new if self._delta is None else plus(self._delta, new)
        self._base = replace(
            last,
            calls=_less(last.calls, last.gone, Histogram.since),
            failures=_less(last.failures, last.gone_failures, int.__sub__) if asked(last.failures) else FAILURES,
            waits=_less(last.waits, last.gone_waits, WaitTime.since) if asked(last.waits) else WAITS,
        )


def _less(values: Mapping[K, V], gone: Mapping[K, V], without: Callable[[V, V], V]) -> Mapping[K, V]:
    """Return what later snapshots will still have."""
    return {key: without(value, gone[key]) if key in gone else value for key, value in values.items()}


def frame(minute: Minute) -> dict[str, Any]:
    """Return a minute as JSON; members that count nothing are left out.

    A series is a list: its labels, then its numbers.
    """
    counts = minute.counts
    found = counts.tracepoints
    return {
        "kind": "minute",
        "from_ns": minute.from_ns,
        "time_ns": minute.time_ns,
        "monotonic_ns": counts.monotonic_ns,
        "elapsed_ns": counts.elapsed_ns,
        "calls": [[_labels(key), h.sum_ns, h.max_ns, _sparse(h.buckets)] for key, h in counts.calls.items()],
        **({"failures": [[_labels(k), n] for k, n in counts.failures.items()]} if asked(counts.failures) else {}),
        **({"waits": [[_labels(k), *_wait(t)] for k, t in counts.waits.items()]} if asked(counts.waits) else {}),
        "wp_faults": {outcome.value: number for outcome, number in counts.wp_faults.items()},
        "lost": {kind.value: number for kind, number in counts.lost.items() if number},
        "in_flight": counts.in_flight,
        "oldest_in_flight_ns": counts.oldest_in_flight_ns,
        **({"tracepoints": _tracepoints(found)} if found else {}),
        **({"space": space_frame(minute.space)} if minute.space else {}),
        **({"risk": risk_frame(minute.risk)} if minute.risk else {}),
        "tracer": {
            "hooks": [{**hook_dict(hook), "denied": hook.denied} for hook in counts.hooks],
            "notes": [text(note) for note in counts.notes],
        },
    }


_ENUMS: Final[dict[str, Callable[[str], object]]] = {
    "path": FaultPath, "outcome": Outcome, "initiator": Initiator, "kind": Class, "reason": Wait,
}  # fmt: skip
#: Members that are left out where they are empty.
_SELDOM: Final = {"who": "", "source": "", "generation": 0}


def _labels(series: Series | FailureSeries | WaitSeries) -> dict[str, object]:
    names = type(series).__dataclass_fields__
    every = {name: getattr(series, name) for name in names}
    return {
        _NAMES.get(name, name): text(value) if isinstance(value, str) else value
        for name, value in every.items()
        if value != _SELDOM.get(name)
    }


#: Labels that a line of the record has another member of that name for.
_NAMES: Final = {"kind": "class"}
_LABEL_OF: Final = {name: label for label, name in _NAMES.items()}


def series_of(kind: type[V], labels: _Labels) -> V:
    """Return the series of its labels. Raises ValueError or TypeError for what is none."""
    members: dict[str, object] = {}
    for name, value in labels.items():
        label = _LABEL_OF.get(name, name)
        plain = exact(value) if isinstance(value, str) else value
        members[label] = _ENUMS[label](plain) if label in _ENUMS else plain
    return kind(**members)


def _sparse(buckets: tuple[int, ...]) -> list[list[int]]:
    return [[index, number] for index, number in enumerate(buckets) if number]


def _wait(time: WaitTime) -> tuple[int, int, int]:
    return time.count, time.ns, time.max_ns


def _tracepoints(found: Tracepoints) -> dict[str, object]:
    return {
        "sigbus": found.sigbus,
        "wp_faults": {mode.value: number for mode, number in found.wp_faults.items()},
        "throttled": [
            [text(b), t.pauses, t.pause_ns, t.dirtied, text(t.mountpoint)] for b, t in found.throttled.items()
        ],
    }


def minute_of(found: Mapping[str, Any]) -> Minute:
    """Return the minute of a frame. Raises ValueError, KeyError or TypeError for what is none."""
    points = found.get("tracepoints")
    counts = Snapshot(
        monotonic_ns=int(found["monotonic_ns"]),
        elapsed_ns=int(found["elapsed_ns"]),
        calls=dict(_histograms(found["calls"])),
        wp_faults={WpOutcome(name): int(number) for name, number in found["wp_faults"].items()},
        lost=dict.fromkeys(Loss, 0) | {Loss(name): int(number) for name, number in found["lost"].items()},
        in_flight=int(found["in_flight"]),
        oldest_in_flight_ns=int(found["oldest_in_flight_ns"]),
        hooks=tuple(map(_hook, found["tracer"]["hooks"])),
        notes=tuple(map(exact, found["tracer"]["notes"])),
        failures={series_of(FailureSeries, labels): int(number) for labels, number in found["failures"]}
        if "failures" in found
        else FAILURES,
        waits={series_of(WaitSeries, labels): WaitTime(*map(int, numbers)) for labels, *numbers in found["waits"]}
        if "waits" in found
        else WAITS,
        tracepoints=points and _tracepoints_of(points),
    )
    space, risk = spaces_of(found.get("space", ())), risks_of(found.get("risk", ()))
    return Minute(int(found["from_ns"]), int(found["time_ns"]), counts, space, risk)


def _histograms(found: Iterable[list[Any]]) -> Iterable[tuple[Series, Histogram]]:
    for labels, sum_ns, max_ns, sparse in found:
        buckets = [0] * BUCKETS
        for index, number in sparse:
            buckets[index] = int(number)
        yield series_of(Series, labels), Histogram(tuple(buckets), int(sum_ns), int(max_ns))


def _tracepoints_of(found: Mapping[str, Any]) -> Tracepoints:
    throttled = {
        exact(bdi): Throttled(int(pauses), int(pause_ns), int(dirtied), exact(where))
        for bdi, pauses, pause_ns, dirtied, where in found["throttled"]
    }
    wp_faults = {Initiator(name): int(number) for name, number in found["wp_faults"].items()}
    return Tracepoints(int(found["sigbus"]), wp_faults, throttled)


def _hook(found: Mapping[str, Any]) -> Hook:
    name, function, detail = (exact(found[member]) for member in ("name", "function", "detail"))
    backend = Backend(found["backend"])
    return Hook(name, function, backend, bool(found["attached"]), detail, int(found["missed"]), bool(found["denied"]))
