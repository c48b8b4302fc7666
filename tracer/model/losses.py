"""What each kind of loss means, and what to do about it. docs/metrics.md has the same table, and a test says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tracer.model.hooks import Loss


@dataclass(frozen=True, slots=True)
class Meaning:
    """What was missed, and what to do: a phrase and sentences, for people."""

    missed: str
    remedy: str


#: By kind; every kind is there.
MEANINGS: Final[Mapping[Loss, Meaning]] = {
    Loss.SERIES_FULL: Meaning(
        "calls, waits or failures of a series for which the kernel's map of series had no room",
        "Raise --max-series, or count fewer series: filter by --fs or --mount, leave out --by and --cgroups.",
    ),
    Loss.INFLIGHT_FULL: Meaning(
        "calls, runs of do_wp_page or waits that were not followed, since more were under way at once than the "
        "kernel's maps hold",
        "Find what is stuck: mkwrite stuck. If that is as it should be, trace fewer tasks: --pid, --comm, --cgroup.",
    ),
    Loss.EVENTS_FULL: Meaning(
        "failures or slow calls that were not told one by one, since nobody read them in time; the counts are complete",
        "Nothing, where counts are enough. Else raise --slower, or let the output go where it is written faster.",
    ),
    Loss.UNMATCHED_ENTRY: Meaning(
        "calls whose return was not seen",
        "It follows from missed_probe (see there), or another fentry tracer came or went while a task slept in the "
        "function. Without these, report it.",
    ),
    Loss.UNMATCHED_RETURN: Meaning(
        "returns of calls and of do_wp_page, and throttled faults, whose beginning was not seen, but for what began "
        "before tracing did",
        "It follows from missed_probe or inflight_full: see there. Without these, report it.",
    ),
    Loss.MISSED_PROBE: Meaning(
        "runs of a hook that the kernel skipped",
        "Leave --backend at auto. mkwrite doctor says which backend that is, and why.",
    ),
    Loss.FILESYSTEMS_FULL: Meaning(
        "names of filesystem types, or that a device number has another filesystem now: the kernel's map was full",
        "Trace fewer filesystems: --fs, --mount.",
    ),
}

#: What is missed where fentry has to be used all the same.
FENTRY_PREEMPTED: Final = (
    "This kernel preempts BPF programs: on busy CPUs fentry misses calls, and counts them as missed_probe."
)
