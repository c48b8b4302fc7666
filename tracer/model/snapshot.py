"""All counts of a session at one moment. No I/O. Times are nanoseconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from tracer.model.asked import asked
from tracer.model.calls import Initiator, Series, WpOutcome
from tracer.model.failures import FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.hooks import Hook, Loss
from tracer.model.lookup import Earlier
from tracer.model.waits import WaitSeries, WaitTime


@dataclass(frozen=True, slots=True)
class Throttled:
    """Tasks made to pause since they dirtied pages of a device too fast: how often, how long, for how many bytes.

    ``mountpoint`` is where a filesystem of that device is mounted, "" where none is known to be.
    """

    pauses: int = 0
    pause_ns: int = 0
    dirtied: int = 0
    mountpoint: str = field(default="", compare=False)

    def since(self, earlier: Throttled) -> Throttled:
        """Return what came after ``earlier``."""
        pauses, pause_ns = self.pauses - earlier.pauses, self.pause_ns - earlier.pause_ns
        return Throttled(pauses, pause_ns, self.dirtied - earlier.dirtied, self.mountpoint)


@dataclass(frozen=True, slots=True)
class Tracepoints:
    """What is counted where no function can be hooked (see ``Backend.TRACEPOINT``).

    ``sigbus`` counts the signals that a task's own fault caused. ``wp_faults`` are page faults, by ``USER`` and
    ``KERNEL`` mode, of writes to pages that were present and not writable: those that the processor reported, whatever
    came of them. ``throttled`` is by the device's name in /sys/class/bdi.
    """

    sigbus: int
    wp_faults: Mapping[Initiator, int]
    throttled: Mapping[str, Throttled]

    def since(self, earlier: Tracepoints) -> Tracepoints:
        """Return what came after ``earlier``; devices without a pause in between are left out."""
        throttled = {
            name: now.since(earlier.throttled.get(name, Throttled()))
            for name, now in self.throttled.items()
            if now != earlier.throttled.get(name)
        }
        wp_faults = {mode: n - earlier.wp_faults.get(mode, 0) for mode, n in self.wp_faults.items()}
        return Tracepoints(self.sigbus - earlier.sigbus, wp_faults, throttled)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All counts of a session at one moment: cumulative, or of an interval (see ``since``).

    ``monotonic_ns`` is CLOCK_MONOTONIC; ``elapsed_ns`` the time that the counts cover. ``in_flight`` counts the calls
    that have not returned yet. ``lost`` and ``wp_faults`` hold every kind, zeros included. Using ``failures`` or
    ``waits`` raises UsageError where the session was not asked for them. ``gone``, ``gone_failures`` and
    ``gone_waits``: of ``calls``, ``failures`` and ``waits``, what later snapshots will not have any more (see
    ``Options.make_room``). ``runs``: by BPF program, how often it ran and for how many ns, where the kernel keeps count
    of that. ``told``: how often a program was told of writes that were lost at writeback;
    ``forgotten``: how often the kernel forgot such an error that nobody was told of. With ``tracepoints`` there
    are no calls and no ``wp_faults``: nobody sees them.
    """

    monotonic_ns: int
    elapsed_ns: int
    calls: Mapping[Series, Histogram]
    wp_faults: Mapping[WpOutcome, int]
    lost: Mapping[Loss, int]
    in_flight: int
    #: How long the oldest of them lasts, 0 if there is none.
    oldest_in_flight_ns: int = 0
    hooks: tuple[Hook, ...] = ()
    notes: tuple[str, ...] = ()
    failures: Mapping[FailureSeries, int] = field(default_factory=dict)
    tracepoints: Tracepoints | None = None
    gone: Mapping[Series, Histogram] = field(default_factory=dict)
    gone_failures: Mapping[FailureSeries, int] = field(default_factory=dict)
    gone_waits: Mapping[WaitSeries, WaitTime] = field(default_factory=dict)
    runs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    waits: Mapping[WaitSeries, WaitTime] = field(default_factory=dict)
    told: int = 0
    forgotten: int = 0

    def since(self, earlier: Snapshot) -> Snapshot:
        """Return what happened between ``earlier`` and this snapshot; series without a call in between are left out."""
        calls = {}
        calls_before = Earlier(earlier.calls, self.calls)
        for series, histogram in self.calls.items():
            before = calls_before.get(series)
            delta = histogram if before is None else histogram.since(before)
            if delta.count:
                calls[series] = delta
        return replace(
            self,
            elapsed_ns=self.monotonic_ns - earlier.monotonic_ns,
            calls=calls,
            wp_faults={k: n - earlier.wp_faults.get(k, 0) for k, n in self.wp_faults.items()},
            lost={k: n - earlier.lost.get(k, 0) for k, n in self.lost.items()},
            failures=self._failures_since(earlier) if asked(self.failures) else self.failures,
            tracepoints=self.tracepoints and earlier.tracepoints and self.tracepoints.since(earlier.tracepoints),
            waits=self._waits_since(earlier) if asked(self.waits) else self.waits,
            told=self.told - earlier.told,
            forgotten=self.forgotten - earlier.forgotten,
        )

    def _failures_since(self, earlier: Snapshot) -> dict[FailureSeries, int]:
        before = Earlier(earlier.failures, self.failures)
        return {key: more for key, n in self.failures.items() if (more := n - (before.get(key) or 0))}

    def _waits_since(self, earlier: Snapshot) -> dict[WaitSeries, WaitTime]:
        before = Earlier(earlier.waits, self.waits)
        return {key: more for key, time in self.waits.items() if (more := time.since(before.get(key))).count}

    def by_name(self) -> Snapshot:
        """Return what has the same names taken together: filesystems that had a device number and a place in turn."""
        calls = self.grouped(lambda series: replace(series, generation=0))
        failures: dict[FailureSeries, int] = {}
        for failure, number in self.failures.items() if asked(self.failures) else ():
            same = replace(failure, generation=0)
            failures[same] = failures.get(same, 0) + number
        waits: dict[WaitSeries, WaitTime] = {}
        for wait, time in self.waits.items() if asked(self.waits) else ():
            alike = replace(wait, generation=0)
            waits[alike] = waits.get(alike, WaitTime()) + time
        return replace(
            self,
            calls=calls,
            failures=failures if asked(self.failures) else self.failures,
            waits=waits if asked(self.waits) else self.waits,
        )

    def grouped(self, key: Callable[[Series], Series]) -> dict[Series, Histogram]:
        """Histograms merged under ``key(series)``, e.g. with the initiator left out."""
        merged: dict[Series, Histogram] = {}
        for series, histogram in self.calls.items():
            group = key(series)
            known = merged.get(group)
            merged[group] = histogram if known is None else known + histogram
        return merged

    @property
    def total_lost(self) -> int:
        """All losses together."""
        return sum(self.lost.values())
