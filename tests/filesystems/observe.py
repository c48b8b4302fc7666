"""What is seen of a filesystem: while both backends trace, pages are written, then once more when it is full."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.filesystems.counts import AGAIN, FIRST, HOLES
from tests.filesystems.recipe import Full, Place, Recipe, now
from tests.filesystems.stage import Stage
from tests.filesystems.writers import child, first_write, write_after_read, write_back
from tests.live.guest import truth
from tests.live.refusals import fill
from tracer.cli.main import cli
from tracer.diagnosis.explainer import Explained, Explainer
from tracer.host.mounts import Mounts
from tracer.model.calls import FaultPath, Series
from tracer.model.histogram import Histogram
from tracer.model.hooks import FUNCTION_BACKENDS, Backend
from tracer.model.options import Options
from tracer.session import Session

Calls = Mapping[Series, Histogram]
_ROUNDS = 16


@dataclass
class Observation:
    """What was seen. ``dev`` and ``mountpoint`` are from the mount table, ``refused`` is the errno of mmap(2)."""

    directory: Path
    mountpoint: str
    dev: int
    #: What ``doctor --filesystems --json`` says of it.
    told: dict[str, Any]
    peer: str
    calls: dict[FaultPath, dict[Backend, Calls]] = field(default_factory=dict)
    #: The kernel's own count of calls of the handler.
    hits: dict[FaultPath, int] = field(default_factory=dict)
    wall_ns: dict[FaultPath, int] = field(default_factory=dict)
    refused: str = ""
    full: Full | None = None
    late: str = ""
    explained: Explained | None = None


def observe(recipe: Recipe, stage: Stage) -> Observation:
    """Set it up, write to it, fill it."""
    assert recipe.build is not None
    built = recipe.build(stage)
    place = built if isinstance(built, Place) else Place(built)
    mount = Mounts.read().at(str(place.seen or place.path))
    assert mount is not None
    found = Observation(place.path, mount.mountpoint, mount.dev, _told(place), place.peer)
    first, again = (place.path / name for name in recipe.files or ("first", "again"))
    work = {
        FaultPath.FIRST_WRITE: partial(first_write, first, FIRST, recipe.stride),
        FaultPath.WRITE_PROTECT: partial(write_after_read, again, AGAIN, recipe.stride),
    }
    asked = now(recipe.handler)
    with ExitStack() as stack:
        counter = stack.enter_context(truth(asked)) if asked else None
        sessions = {
            backend: stack.enter_context(Session(Options(backend=backend, failures=False)))
            for backend in FUNCTION_BACKENDS
        }
        for path, write in work.items():
            before = {backend: session.snapshot() for backend, session in sessions.items()}
            hits = counter.hits() if counter else 0
            end = child(write)
            assert not (end.sigbus or end.late), end
            found.refused, found.wall_ns[path] = end.refused, end.wall_ns
            found.hits[path] = counter.hits() - hits if counter else 0
            found.calls[path] = {
                backend: {
                    series: calls
                    for series, calls in session.snapshot().since(before[backend]).calls.items()
                    if series.dev == mount.dev
                }
                for backend, session in sessions.items()
            }
    if not found.refused:
        _fill(recipe, place, found)
    return found


def _told(place: Place) -> dict[str, Any]:
    """The command itself, but in this process: to start Python takes longer than all the rest."""
    mounts = Mounts.read()
    wanted = mounts.at(str(place.path)) or mounts.at(str(place.seen))
    assert wanted is not None
    result = CliRunner().invoke(cli, ["doctor", "--filesystems", "--json"])
    assert result.exit_code == 0, result.output
    rows: list[dict[str, Any]] = json.loads(result.stdout)["filesystems"]
    (row,) = (row for row in rows if row["mountpoint"] == wanted.mountpoint)
    return row


def _fill(recipe: Recipe, place: Place, found: Observation) -> None:
    """Leave no space, then write into holes."""
    where = place.fills or place.path
    if not os.statvfs(where).f_blocks:
        found.full = Full.ENDLESS
        return
    file = _holes(recipe, place)
    if now(recipe.full) is Full.GIVEN and file.stat().st_blocks * 512 >= file.stat().st_size:
        found.full = Full.GIVEN
        return
    os.sync()
    with Session(Options(every_errno=True)) as session:
        fill(where)
        if recipe.delays:
            _fill_up(where)
        end = child(partial(write_back, file, HOLES, recipe.stride))
        found.late = end.late or end.refused
        if end.sigbus:
            found.full = Full.FAULT
            found.explained = _of(session, end.pid)
        elif end.refused:
            found.full = Full.MMAP
        else:
            found.full = Full.WRITEBACK if end.late else Full.LOST
    with suppress(OSError):
        (where / "filler").unlink()


def _holes(recipe: Recipe, place: Place) -> Path:
    """A file that was not written to, if one can be had."""
    if recipe.files:
        return place.path / recipe.files[0]
    for name in ("first", "again"):
        (place.path / name).unlink()
    file = place.path / "holes"
    with file.open("wb") as stream:
        stream.truncate(HOLES * recipe.stride)
    return file


def _fill_up(where: Path) -> None:
    """Write until statfs finds nothing free, too: a write is promised more than it takes when it is written back."""
    with (where / "filler").open("ab", buffering=0) as stream:
        for _ in range(_ROUNDS):
            os.sync()
            if not os.statvfs(where).f_bavail:
                return
            with suppress(OSError):
                while True:
                    stream.write(bytes(4096))


def _of(session: Session, pid: int) -> Explained | None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        for failure in session.failures(0.2):
            if failure.pid == pid:
                return next(iter(Explainer(session.has_ended).explain([failure])))
    return None
