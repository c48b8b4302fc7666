"""Mappings and risks as JSON objects; text, devices and times are written as ``tracer.export.jsonl`` says."""

from __future__ import annotations

from collections.abc import Sequence

from tracer.export.jsonl import text
from tracer.filesystems import rules
from tracer.host.mapped import MappedFile, Scan
from tracer.maps import Row
from tracer.model import device_name


def maps_dict(scan: Scan, rows: Sequence[Row]) -> dict[str, object]:
    """What ``maps --json`` prints."""
    return {
        "mappings": [
            {
                **_file_dict(row.file),
                "processes": [_process_dict(scan, pid) for pid in row.pids],
                "writable": row.writable,
                "mapped_bytes": row.mapped,
                **({} if row.resident is None else {"resident_bytes": row.resident, "dirty_bytes": row.dirty}),
            }
            for row in rows
        ],
        "hidden_processes": scan.hidden,
        "notes": [text(note) for note in scan.notes],
    }


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
