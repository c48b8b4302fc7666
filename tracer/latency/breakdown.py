"""Where the time of faults went, by filesystem and handler: on the CPU, or waiting, and for what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tracer.model.calls import CallEvent
from tracer.model.snapshot import Snapshot
from tracer.model.waits import Wait

#: What is no wait: on the CPU, or ready to run.
CPU: Final = "cpu"


@dataclass(frozen=True, slots=True)
class Part:
    """``cpu`` or a reason: the time, the calls that waited so and the longest of them (both 0 for ``cpu``)."""

    name: str
    ns: int
    count: int = 0
    max_ns: int = 0


@dataclass(frozen=True, slots=True)
class Breakdown:
    """The calls of a handler on a filesystem and the parts of their time, the largest first.

    ``ns`` is the time in the handler and, after it, throttled; the parts sum up to it.
    """

    fstype: str
    mountpoint: str
    dev: int
    handler: str
    calls: int
    ns: int
    parts: tuple[Part, ...]


def breakdowns(snapshot: Snapshot) -> list[Breakdown]:
    """Return a breakdown for each filesystem and handler that was called, the most time first."""
    calls: dict[tuple[str, str, int, str], list[int]] = {}
    for series, histogram in snapshot.calls.items():
        known = calls.setdefault((series.fstype, series.mountpoint, series.dev, series.handler), [0, 0])
        known[0] += histogram.count
        known[1] += histogram.sum_ns
    waits: dict[tuple[str, str, int, str], list[Part]] = {}
    for place, time in snapshot.by_name().waits.items():
        key = (place.fstype, place.mountpoint, place.dev, place.handler)
        waits.setdefault(key, []).append(Part(place.reason.value, time.ns, time.count, time.max_ns))
    found = []
    for key in calls.keys() | waits.keys():
        count, latency_ns = calls.get(key, (0, 0))
        parts = [part for part in waits.get(key, ()) if part.count]
        within = sum(part.ns for part in parts if part.name != Wait.THROTTLE)
        # A call that waits for its PTE has its waits counted already, itself not yet.
        parts.append(Part(CPU, max(0, latency_ns - within)))
        parts.sort(key=lambda part: (-part.ns, part.name))
        found.append(Breakdown(*key, count, sum(part.ns for part in parts), tuple(parts)))
    return sorted(found, key=lambda one: (-one.ns, one.fstype, one.mountpoint, one.dev, one.handler))


def parts_of(event: CallEvent) -> Mapping[str, int]:
    """Return a store's time in ns by part, the largest first; they sum up to ``CallEvent.took_ns``."""
    parts = {reason.value: ns for reason, ns in event.waits.items()}
    parts[CPU] = max(0, event.latency_ns - sum(parts.values()))
    if event.throttled_ns:
        parts[Wait.THROTTLE] = event.throttled_ns
    return dict(sorted(parts.items(), key=lambda item: -item[1]))
