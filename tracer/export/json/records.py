r"""Snapshots, events and hooks as JSON objects: the stable shapes that every ``--json`` prints.

- A time is a number of nanoseconds and its name ends in ``_ns``; a moment is ``time_ns`` by the wall clock
  (CLOCK_REALTIME), ``monotonic_ns`` by CLOCK_MONOTONIC. A device is ``"major:minor"``, an address
  ``"0x..."``. A label that was not asked for is absent. New members may come; none changes its meaning.
- Text is exact: a byte that is not UTF-8 is written ``\xNN`` and a backslash is doubled, so that the bytes
  can be had back. Control characters are left to JSON's own escapes.
- A histogram is ``{"count", "sum_ns", "max_ns", "p50_ns", "p90_ns", "p99_ns", "buckets"}``, its buckets
  ``[lower_ns, upper_ns, count]`` with both bounds inclusive, empty ones left out; where a bucket has no upper
  bound there is ``null``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from tracer.latency.breakdown import Breakdown, parts_of
from tracer.latency.stacks import Seen
from tracer.latency.stuck import StuckCall
from tracer.model.asked import asked
from tracer.model.calls import CallEvent, Series, device_name
from tracer.model.failures import Actor, FailureSeries
from tracer.model.freezes import Freeze
from tracer.model.histogram import BUCKETS, LOWER_NS, Histogram, upper_ns
from tracer.model.hooks import Hook
from tracer.model.snapshot import Snapshot, Tracepoints

_SPECIAL = re.compile("[\\\\\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(?:\\|x[0-9a-f]{2}|u[0-9a-f]{4})")


def json_line(record: Mapping[str, object]) -> str:
    """One record on one line, without the newline; ASCII only, so that no locale can spoil it."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False)


def snapshot_dict(snapshot: Snapshot) -> dict[str, object]:
    """All counts of a snapshot, its series in a stable order."""
    return {
        "monotonic_ns": snapshot.monotonic_ns,
        "elapsed_ns": snapshot.elapsed_ns,
        "calls": [
            {**_series_dict(series), "latency": histogram_dict(histogram)}
            for series, histogram in sorted(snapshot.by_name().calls.items())
        ],
        **({"failure_counts": _failure_counts(snapshot.failures)} if asked(snapshot.failures) else {}),
        "wp_faults": {outcome.value: number for outcome, number in snapshot.wp_faults.items()},
        "lost": {kind.value: number for kind, number in snapshot.lost.items()},
        "in_flight": snapshot.in_flight,
        "hooks": [hook_dict(hook) for hook in snapshot.hooks],
        "notes": [text(note) for note in snapshot.notes],
        **({"tracepoints": _tracepoints_dict(snapshot.tracepoints)} if snapshot.tracepoints else {}),
    }


def total_dict(snapshot: Snapshot) -> dict[str, object]:
    """Return a snapshot in a few numbers: what happened since the start, whatever it was."""
    failed = sum(histogram.count for series, histogram in snapshot.calls.items() if series.outcome.failed)
    return {
        "elapsed_ns": snapshot.elapsed_ns,
        "calls": sum(histogram.count for histogram in snapshot.calls.values()),
        "failed_calls": failed,
        **({"failures": sum(snapshot.failures.values())} if asked(snapshot.failures) else {}),
        "wp_faults": sum(snapshot.wp_faults.values()),
        "lost": {kind.value: number for kind, number in snapshot.lost.items()},
    }


def histogram_dict(histogram: Histogram) -> dict[str, object]:
    """Return a latency histogram; its shape is in the module's description. Quantiles are within 9.1 %."""
    return {
        "count": histogram.count,
        "sum_ns": histogram.sum_ns,
        "max_ns": histogram.max_ns,
        **{f"p{percent}_ns": round(histogram.quantile(percent / 100)) for percent in (50, 90, 99)},
        "buckets": [
            [LOWER_NS[index], upper_ns(index) if index + 1 < BUCKETS else None, number]
            for index, number in enumerate(histogram.buckets)
            if number
        ],
    }


def breakdown_dict(breakdown: Breakdown) -> dict[str, object]:
    """Where the time of a handler's calls on a filesystem went."""
    return {
        "fstype": text(breakdown.fstype),
        "mountpoint": text(breakdown.mountpoint),
        "device": device_name(breakdown.dev),
        "handler": text(breakdown.handler),
        "calls": breakdown.calls,
        "total_ns": breakdown.ns,
        "parts": [
            {"part": part.name, "total_ns": part.ns, "calls": part.count, "max_ns": part.max_ns}
            for part in breakdown.parts
        ],
    }


def seen_dict(seen: Seen) -> dict[str, object]:
    """Return a stack of waiting calls, its functions the innermost first."""
    where = seen.where
    return {
        "fstype": text(where.fstype),
        "mountpoint": text(where.mountpoint),
        "device": device_name(where.dev),
        "handler": text(where.handler),
        "reason": where.reason,
        "looks": seen.looks,
        "total_ns": seen.ns,
        "stack": [text(function) for function in where.stack],
    }


def event_dict(event: CallEvent) -> dict[str, object]:
    """One call; ``time_ns`` is the wall clock, ``vm_fault`` the handler's return value (VM_FAULT_* bits)."""
    return {
        "time_ns": event.time_ns,
        "pid": event.pid,
        "tid": event.tid,
        "uid": event.uid,
        "comm": text(event.comm),
        "cgroup_id": event.cgroup_id,
        "fstype": text(event.fstype),
        "mountpoint": text(event.mountpoint),
        "mount_source": text(event.source),
        "device": device_name(event.dev),
        "inode": event.inode,
        "file": text(event.file),
        "deleted": event.deleted,
        "handler": text(event.handler),
        "path": event.path.value,
        "initiator": event.initiator.value,
        "outcome": event.outcome.value,
        "offset": event.offset,
        "address": hex(event.address),
        "latency_ns": event.latency_ns,
        "vm_fault": event.vm_fault,
        "throttled_ns": event.throttled_ns,
        **({"parts_ns": parts_of(event)} if event.waits or event.throttled_ns else {}),
    }


def stuck_dict(one: StuckCall) -> dict[str, object]:
    """Return a call that has not returned; what is not known of it is empty or null."""
    call = one.call
    return {
        "age_ns": call.age_ns,
        "age_is_at_least": one.at_least,
        "pid": call.pid,
        "tid": call.tid,
        "comm": text(call.comm),
        "reason": one.reason,
        "fstype": text(call.fstype),
        "mountpoint": text(call.mountpoint),
        "device": device_name(call.dev) if call.dev else None,
        "inode": call.inode or None,
        "file": text(call.file),
        "offset": None if one.at_least else call.offset,
        "handler": text(call.handler),
        "peer": text(one.peer) or None,
        "freeze": freeze_dict(one.freeze),
        "stack": [text(function) for function in one.stack],
    }


def freeze_dict(freeze: Freeze | None) -> dict[str, object] | None:
    """Return the last freeze of a filesystem that was seen; null for what was not seen of it, and if there was none."""
    if freeze is None:
        return None
    return {
        "began_ns": freeze.began_ns or None,
        "by": freeze.by and actor_dict(freeze.by),
        "thawed_ns": freeze.thawed_ns or None,
        "thawed_by": freeze.thawed_by and actor_dict(freeze.thawed_by),
    }


def actor_dict(actor: Actor) -> dict[str, object]:
    """Return a thread as the kernel had it."""
    return {"pid": actor.pid, "tid": actor.tid, "comm": text(actor.comm)}


def hook_dict(hook: Hook) -> dict[str, object]:
    """One hook and its state."""
    return {
        "name": text(hook.name),
        "function": text(hook.function),
        "backend": hook.backend.value,
        "attached": hook.attached,
        "detail": text(hook.detail),
        "missed": hook.missed,
    }


def text(raw: str) -> str:
    r"""``raw`` without surrogates, nothing lost: an invalid byte becomes ``\xNN``, a backslash is doubled."""
    return _SPECIAL.sub(lambda match: _escaped(match[0]), raw)


def _escaped(char: str) -> str:
    if char == "\\":
        return "\\\\"
    code = ord(char)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def exact(escaped: str) -> str:
    """Return what ``text`` was given: that of JSON again as the program has it."""
    return _ESCAPED.sub(lambda match: _plain(match[0]), escaped)


def _plain(escape: str) -> str:
    code = escape[2:]
    return "\\" if not code else chr(int(code, 16) + (0xDC00 if len(code) == 2 else 0))


def _failure_counts(failures: Mapping[FailureSeries, int]) -> list[dict[str, object]]:
    return [
        {
            "fstype": text(series.fstype),
            "mountpoint": text(series.mountpoint),
            "device": device_name(series.dev) if series.dev else None,
            "class": series.kind.value,
            "errno": series.errno or None,
            **({"who": text(series.who)} if series.who else {}),
            "count": number,
        }
        for series, number in sorted(failures.items())
    ]


def _tracepoints_dict(found: Tracepoints) -> dict[str, object]:
    return {
        "sigbus": found.sigbus,
        "wp_faults": {mode.value: number for mode, number in found.wp_faults.items()},
        "throttled": [
            {
                "bdi": text(bdi),
                "mountpoint": text(t.mountpoint),
                "pauses": t.pauses,
                "pause_ns": t.pause_ns,
                "dirtied_bytes": t.dirtied,
            }
            for bdi, t in sorted(found.throttled.items())
        ],
    }


def _series_dict(series: Series) -> dict[str, object]:
    labels: dict[str, object] = {
        "fstype": text(series.fstype),
        "mountpoint": text(series.mountpoint),
        "mount_source": text(series.source),
        "device": device_name(series.dev),
        "handler": text(series.handler),
        "path": series.path.value,
        "outcome": series.outcome.value,
        "initiator": series.initiator.value,
    }
    if series.who:
        labels["who"] = text(series.who)
    return labels
