"""Victims of every refusal under one session for each backend: what all tests of SIGBUS look at."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.live.bad_disk import BadDisk
from tests.live.guest import ROOT, run
from tests.live.refusals import OFFSET, REFUSALS, SIZE, Met, Refusal, Stage, odd_path, overlay, prepare
from tests.live.reported import tell
from tracer.model.failures import FailureSeries
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.model.snapshot import Snapshot
from tracer.session import Session

#: Refusals that one process catches, threads that are refused at once, and refusals of a burst.
CAUGHT, THREADS, BURST = 13, 211, 5003


@pytest.fixture(scope="session")
def refusing() -> dict[str, Path]:
    """A file on each filesystem that refuses, and on a tmpfs that is full."""
    found = {refusal.name: prepare(refusal) for refusal in REFUSALS if not refusal.late}
    tmpfs = ROOT / "sigbus" / "tmpfs"
    tmpfs.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmpfs))
    (tmpfs / "filler").write_bytes(bytes(1 << 20))
    found["tmpfs"] = tmpfs / "file"
    return found


@dataclass
class Victims:
    """What all victims met on one backend."""

    backend: Backend
    met: dict[str, Met] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    seen: int = 0
    burst: Mapping[FailureSeries, int] = field(default_factory=dict)
    final: Snapshot | None = None


@pytest.fixture(scope="session")
def victims(request: pytest.FixtureRequest, backend: Backend, refusing: dict[str, Path]) -> Iterator[Victims]:
    """Let every victim run under one watch. What was reported of each is printed: the table in the docs has it."""
    told = Victims(backend)
    with Session(Options(backend, every_errno=True)) as session:
        stage, met = Stage(session), told.met
        for refusal in REFUSALS:
            file = prepare(refusal, f"-{backend}") if refusal.late else refusing[refusal.name]
            told.files[refusal.name] = file
            breaks = partial(refuse_now, refusal, file) if refusal.late else None
            met[refusal.name] = stage.victim(refusal.victim, file, SIZE, OFFSET, uid=refusal.uid, meanwhile=breaks)
        for name, disk in (
            ("disk", BadDisk(f"disk-{backend}")),
            ("xfs-disk", BadDisk(f"xfs-disk-{backend}", "xfs", 320)),
        ):
            told.files[name] = disk.file
            met[name] = stage.victim("store", disk.file, SIZE, OFFSET, meanwhile=partial(_fail, disk))
        met["tmpfs"] = stage.victim("store", refusing["tmpfs"], SIZE, OFFSET)
        full = refusing["ext4"]
        told.files |= dict.fromkeys(("catch", "burst"), full)
        told.files["tmpfs"] = refusing["tmpfs"]
        met["catch"] = stage.victim("catch", full, SIZE, OFFSET, CAUGHT, count=CAUGHT)
        for fstype in ("xfs-user", "tmpfs"):
            place = ROOT / "shrunk" if fstype == "tmpfs" else refusing[fstype].parent / "shrunk"
            told.files[f"shrunk {fstype}"] = place
            met[f"shrunk {fstype}"] = stage.victim("shrunk", place, SIZE, 8193, OFFSET)
            place.unlink()
        met["hugetlb"] = stage.victim("hugetlb")
        for how in ("die", "catch", "ignore", "block"):
            met[f"sent {how}"] = stage.victim("wait", how, meanwhile=_send, kill=True)
        met["threads"] = stage.victim("threads", full.parent / "wide", THREADS)
        met["poison"] = stage.victim("poison", ROOT / f"poison-{backend}")
        fixed = told.files["immutable"] = refusing["ext4-user"].parent / f"fixed-{backend}"
        met["immutable"] = stage.victim(
            "store", fixed, SIZE, OFFSET, meanwhile=lambda _: run("chattr", "+i", str(fixed))
        )
        gone = told.files["deleted"] = full.parent / "gone"
        met["deleted"] = stage.victim("store", gone, SIZE, OFFSET, meanwhile=lambda _: gone.unlink())
        told.files["odd"] = Path(os.fsdecode(odd_path(ROOT / "oddities", str(backend))))
        met["odd"] = stage.victim("shrunk", os.fsencode(told.files["odd"]), SIZE, 4097, OFFSET)
        told.files["overlay"], told.files["upper"] = overlay(f"-{backend}")
        met["overlay"] = stage.victim("store", told.files["overlay"], SIZE, OFFSET)
        told.files["shrunk overlay"] = told.files["overlay"].with_name("shrunk")
        met["shrunk overlay"] = stage.victim("shrunk", told.files["shrunk overlay"], SIZE, 8193, OFFSET)
        inside = ROOT / f"inside-{backend}"
        inside.mkdir()
        bind = ("unshare", "-m", "sh", "-c", f'mount --bind {full.parent} {inside} && exec "$@"', "sh")
        told.files["namespace"] = inside / "file"
        met["namespace"] = stage.victim("store", told.files["namespace"], SIZE, OFFSET, wrapper=bind)
        volume = refusing["btrfs"].parent / f"volume-{backend}"
        run("btrfs", "subvolume", "create", str(volume))
        told.files["subvolume"] = volume / "file"
        met["subvolume"] = stage.victim("store", told.files["subvolume"], SIZE, OFFSET)
        before = session.snapshot()
        met["burst"] = stage.victim("catch", full, SIZE, OFFSET, BURST)
        told.burst = session.snapshot().since(before).failures
        told.seen = sum(n for burst, n in session.bursts().items() if burst.tgid == met["threads"].pid)
        told.final = session.finish()
    tell(request, backend, met)
    yield told


def _fail(disk: BadDisk, _pid: int) -> None:
    disk.fail()


def refuse_now(refusal: Refusal, file: Path, _pid: int) -> None:
    refusal.refuse(file.parent)


def _send(pid: int) -> None:
    os.kill(pid, signal.SIGBUS)
