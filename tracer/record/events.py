"""What happened beside counts and failures, as frames and as it was again: slow calls, calls that were stuck."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tracer.export.json.records import actor_dict, event_dict, exact, stuck_dict, text
from tracer.latency.breakdown import CPU
from tracer.latency.stuck import StuckCall
from tracer.model.calls import CallEvent, Filesystem, Initiator, Outcome, device_name, device_number
from tracer.model.calls import FaultPath as Path
from tracer.model.failures import Actor
from tracer.model.freezes import Freeze
from tracer.model.mounts import Mount
from tracer.model.waits import InFlight, Wait

_Frame = Mapping[str, Any]


def slow_frame(event: CallEvent) -> dict[str, Any]:
    """Write a slow call: what ``mkwrite trace --json`` prints of it, under a kind of its own."""
    return {"kind": "slow", **event_dict(event)}


def call_of(frame: _Frame) -> CallEvent:
    """Return the slow call of a frame. Raises ValueError, KeyError or TypeError for what is none."""
    parts = {name: int(ns) for name, ns in frame.get("parts_ns", {}).items()}
    throttled_ns = int(frame["throttled_ns"])
    apart = (CPU, Wait.THROTTLE) if throttled_ns else (CPU,)
    return CallEvent(
        time_ns=int(frame["time_ns"]),
        pid=int(frame["pid"]),
        tid=int(frame["tid"]),
        uid=int(frame["uid"]),
        comm=exact(frame["comm"]),
        cgroup_id=int(frame["cgroup_id"]),
        fstype=exact(frame["fstype"]),
        mountpoint=exact(frame["mountpoint"]),
        dev=device_number(frame["device"]),
        inode=int(frame["inode"]),
        file=exact(frame["file"]),
        deleted=bool(frame["deleted"]),
        handler=exact(frame["handler"]),
        path=Path(frame["path"]),
        initiator=Initiator(frame["initiator"]),
        outcome=Outcome(frame["outcome"]),
        offset=int(frame["offset"]),
        address=int(frame["address"], 16),
        latency_ns=int(frame["latency_ns"]),
        vm_fault=int(frame["vm_fault"]),
        source=exact(frame["mount_source"]),
        waits={Wait(name): ns for name, ns in parts.items() if name not in apart},
        throttled_ns=throttled_ns,
    )


def stuck_frame(calls: Iterable[StuckCall], time_ns: int) -> dict[str, Any]:
    """Write calls that are stuck at a moment, as ``mkwrite stuck --json`` prints them."""
    return {"kind": "stuck", "time_ns": time_ns, "stuck": [stuck_dict(one) for one in calls]}


def stuck_of(found: _Frame) -> StuckCall:
    """Return a stuck call of such a frame. Raises ValueError, KeyError or TypeError for what is none."""
    reason = str(found["reason"])
    call = InFlight(
        int(found["age_ns"]), int(found["pid"]), int(found["tid"]), exact(found["comm"]), exact(found["fstype"]),
        exact(found["mountpoint"]), device_number(found["device"] or "0:0"), int(found["inode"] or 0),
        exact(found["file"]), exact(found["handler"]), int(found["offset"] or 0),
        Wait(reason) if reason in list(Wait) else None,
    )  # fmt: skip
    freeze = found["freeze"] and freeze_of(found["freeze"])
    stack = tuple(map(exact, found["stack"]))
    return StuckCall(call, bool(found["age_is_at_least"]), reason, stack, exact(found["peer"] or ""), freeze)


def freeze_of(found: _Frame) -> Freeze:
    """Return a freeze as JSON has it."""
    by, thawed_by = (found[name] and _actor(found[name]) for name in ("by", "thawed_by"))
    return Freeze(int(found["began_ns"] or 0), by, int(found["thawed_ns"] or 0), thawed_by)


def freeze_frames(filesystem: Filesystem, mount: Mount | None, freeze: Freeze, now_ns: int) -> list[dict[str, Any]]:
    """Write a freeze, and its thaw if that was seen; a freeze that was there before the hooks has no ``by``."""
    where = _where(filesystem.dev, mount)
    by = freeze.by and actor_dict(freeze.by)
    began = {"kind": "freeze", "time_ns": freeze.began_ns or now_ns, **where, "by": by}
    if freeze.thawed_by is None:
        return [began]
    thawed_by = actor_dict(freeze.thawed_by)
    thaw = {"kind": "thaw", "time_ns": freeze.thawed_ns, "began_ns": freeze.began_ns or None, **where, "by": thawed_by}
    return [began, thaw] if freeze.began_ns else [thaw]


def mount_frame(kind: str, mount: Mount, time_ns: int) -> dict[str, Any]:
    """Write that something was mounted, unmounted or mounted anew with other options."""
    return {"kind": kind, "time_ns": time_ns, **_where(mount.dev, mount), **_options(mount)}


def mounts_frame(mounts: Sequence[Mount], left_out: int, time_ns: int) -> dict[str, Any]:
    """Write what is mounted, and how many mounts were left out."""
    found = [{**_where(mount.dev, mount), **_options(mount)} for mount in mounts]
    return {"kind": "mounts", "time_ns": time_ns, "mounts": found, "left_out": left_out}


def _where(dev: int, mount: Mount | None) -> dict[str, object]:
    fstype, mountpoint = (mount.fstype, mount.mountpoint) if mount else ("", "")
    return {"fstype": text(fstype), "mountpoint": text(mountpoint), "device": device_name(dev)}


def _options(mount: Mount) -> dict[str, object]:
    options, super_options = ",".join(mount.options), ",".join(mount.super_options)
    return {
        "source": text(mount.source),
        "root": text(mount.root),
        "options": text(options),
        "super_options": text(super_options),
    }


def _actor(found: _Frame) -> Actor:
    return Actor(int(found["pid"]), int(found["tid"]), exact(found["comm"]))
