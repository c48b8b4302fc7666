"""Writes that are lost where a server or daemon has no space for them: each refused request, and who was told."""

from __future__ import annotations

import errno
import subprocess
from collections import Counter
from contextlib import closing

import pytest

from tests.filesystems.recipe import Place
from tests.filesystems.remote import RECIPES
from tests.filesystems.stage import Stage
from tests.live.guest import NO_LOSS, Backend
from tests.live.late_writer import STRIDE
from tests.live.lossy import KERNEL, FullFuse, Writer, agree, fill, loss_of, lost_but_for_missed, missed, of
from tracer.model.failures import Class
from tracer.model.options import Options
from tracer.session import Session

PAGES = 3


@pytest.mark.native
def test_a_fuse_filesystem_that_is_full() -> None:
    """Each request that the daemon refuses is one error.

    FUSE writes back at once: it may do so between the fault and the store, which then faults, and is lost, once more.
    """
    with (
        closing(FullFuse("lossy-fuse")) as disk,
        Session(Options(Backend.TRACEPOINT)) as session,
        Writer(disk.place / "file", PAGES) as writer,
    ):
        assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
        disk.fill()
        assert writer.does(f"store {PAGES}") == "ok"
        disk.write_back()
        found, loss, now = of(session.failures(), writer), loss_of(session, writer), session.snapshot()
        assert {(f.verdict.kind, f.errno_name, f.fstype) for f in found} == {(Class.WRITEBACK, "ENOSPC", "fuse")}
        counted = {series: number for series, number in now.failures.items() if series.mountpoint == str(disk.place)}
        assert sum(counted.values()) == loss.errors >= PAGES - missed(now)
        assert loss.told is None
        assert writer.does("msync") == "ENOSPC"
        told = loss_of(session, writer).told
    assert told is not None
    assert (told.by.pid, told.syscall, told.count) == (writer.pid, 26, 1)


@pytest.mark.nightly
def test_close_tells_where_the_filesystem_does(both: Backend) -> None:
    """The kernel tells each of several closings of a file of FUSE once, whichever comes first."""
    with (
        closing(FullFuse(f"closed-{both}")) as disk,
        Session(Options(both)) as session,
        Writer(disk.place / "file", PAGES) as writer,
    ):
        before = session.snapshot()
        assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
        disk.fill()
        assert writer.does(f"store {PAGES}") == "ok"
        disk.write_back()
        assert loss_of(session, writer).told is None
        assert writer.does("close") == "ENOSPC"
        told = loss_of(session, writer).told
        assert session.snapshot().since(before).told == 1
    assert told is not None
    assert (told.by.pid, told.syscall, told.errno, told.count) == (writer.pid, 3, errno.ENOSPC, 1)


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["nfs3", "nfs4.2"])
def test_a_server_that_is_full(backend: Backend, name: str) -> None:
    """Each page is a request of its own, and one error."""
    (recipe,) = (recipe for recipe in RECIPES if recipe.name == name)
    assert recipe.build is not None
    with Stage(f"late-{name}-{backend}") as stage:
        place = recipe.build(stage)
        assert isinstance(place, Place)
        assert place.fills is not None
        with (
            Session(Options(backend)) as session,
            Writer(place.path / "synced", PAGES) as synced,
            Writer(place.path / "closed", PAGES) as closed,
        ):
            assert [writer.does(step) for writer in (synced, closed) for step in ("map", "fsync")] == ["ok"] * 4
            fill(place.fills)
            assert [writer.does(f"store {PAGES}") for writer in (synced, closed)] == ["ok", "ok"]
            subprocess.run(["sync", "-f", str(place.path)], stderr=subprocess.DEVNULL, check=False)
            found = session.failures()
            assert {loss_of(session, writer).told for writer in (synced, closed)} == {None}
            assert [synced.does("msync"), closed.does("close")] == ["ENOSPC", "ENOSPC"]
            losses = [loss_of(session, writer) for writer in (synced, closed)]
            final = session.finish()
    for writer, loss, syscall in zip((synced, closed), losses, (26, 3), strict=True):
        kinds = Counter((f.verdict.kind, f.errno_name, f.fstype) for f in of(found, writer))
        assert agree(kinds, {(Class.WRITEBACK, "ENOSPC", recipe.fstype): PAGES}, missed(final))
        assert loss.errors == kinds.total()
        if KERNEL >= (5, 11):
            assert (loss.bytes, loss.exact, loss.start, loss.end) == (
                PAGES * 4096,
                True,
                0,
                (PAGES - 1) * STRIDE + 4096,
            )
        assert loss.told is not None
        assert (loss.told.by.pid, loss.told.syscall, loss.told.count) == (writer.pid, syscall, 1)
    assert lost_but_for_missed(final) == NO_LOSS
