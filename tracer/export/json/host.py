"""Mappings and risks as JSON objects; text, devices and times are written as ``tracer.export.json.records`` says."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tracer.export.json.records import text
from tracer.host.mapped import MappedFile, Scan
from tracer.mappings.risk import Assessment, Forecasts, lost_late
from tracer.mappings.rows import MappingRow
from tracer.mappings.survey import Survey
from tracer.model.calls import device_name
from tracer.model.filesystems import rules


def maps_dict(scan: Scan, rows: Sequence[MappingRow]) -> dict[str, object]:
    """Return what ``maps --json`` prints."""
    return {
        "mappings": [
            {
                **_file_dict(row.file),
                "processes": [_process_dict(scan, pid) for pid in row.pids],
                "writable": row.writable,
                "mapped_bytes": row.mapped,
                "beyond_bytes": row.beyond,
                **({} if row.resident is None else {"resident_bytes": row.resident, "dirty_bytes": row.dirty}),
            }
            for row in rows
        ],
        "hidden_processes": len(scan.hidden),
        "hidden": [{"pid": pid, "comm": text(comm)} for pid, comm in sorted(scan.hidden.items())],
        "unseen": [text(sentence) for sentence in scan.unseen],
        "notes": [text(note) for note in scan.notes],
    }


def risk_dict(survey: Survey, forecasts: Forecasts | None = None) -> dict[str, object]:
    """Return what ``risk --json`` prints; a time to refusal that is not in sight is null."""
    return {
        "monotonic_ns": survey.monotonic_ns,
        "limits": [_verdict_dict(verdict, forecasts) for verdict in survey.verdicts],
        "beyond_end": [
            {
                "file": text(cut.path),
                "deleted": cut.deleted,
                "inode": cut.inode,
                "fstype": text(cut.place.fstype),
                "mountpoint": text(cut.place.mountpoint),
                "device": device_name(cut.place.dev),
                "size_bytes": cut.size,
                "beyond_bytes": cut.beyond,
                "processes": [text(who) for who in cut.who],
            }
            for cut in survey.cut
        ],
        "unseen": [text(sentence) for sentence in survey.unseen],
        "notes": [text(note) for note in survey.notes],
    }


def _verdict_dict(verdict: Assessment, forecasts: Forecasts | None) -> dict[str, object]:
    limit = verdict.limit
    record: dict[str, object] = {
        "state": verdict.state.value,
        "fstype": text(limit.place.fstype),
        "mountpoint": text(limit.place.mountpoint),
        "device": device_name(limit.place.dev),
        "limit": limit.kind.value,
        "who": text(limit.who),
        "new_bytes": verdict.new,
        "rewrite_bytes": verdict.rewrites,
        "free_bytes": max(0, limit.free),
        "lost_late": lost_late(limit),
        "fallocate": rules(limit.place.fstype).fallocate.value,
        "files": [
            {
                "file": text(demand.path),
                "deleted": demand.deleted,
                "reached_at": text(demand.here) or None,
                "inode": demand.inode,
                "size_bytes": demand.size,
                "processes": [text(who) for who in demand.who],
                "new_bytes": demand.asks(limit.kind),
                "rewrite_bytes": demand.rewrites,
                "free_bytes": max(0, demand.free),
            }
            for demand in verdict.demands
        ],
    }
    if forecasts is not None:
        taken, seconds = forecasts[limit.key]
        record["taken_bytes_per_second"] = round(taken)
        record["refused_in_ns"] = None if math.isinf(seconds) else round(seconds * 1e9)
    return record


def _file_dict(file: MappedFile) -> dict[str, object]:
    return {
        "file": text(file.path),
        "deleted": file.deleted,
        "inode": file.inode,
        "fstype": text(file.fstype),
        "mountpoint": text(file.mountpoint),
        "device": device_name(file.dev),
        "handler": rules(file.fstype).handler or None,
        "size_bytes": file.size,
        "allocated_bytes": file.allocated,
    }


def _process_dict(scan: Scan, pid: int) -> dict[str, object]:
    process = scan.processes.get(pid)
    if process is None:
        return {"pid": pid}
    return {
        "pid": pid,
        "comm": text(process.comm),
        "uid": process.uid,
        "cgroup": text(process.cgroup),
        "container": text(process.container),
    }
