"""Writes that are lost where a server or daemon has no space for them: each refused request, and who was told."""

from __future__ import annotations

import errno
from contextlib import closing

import pytest

from tests.live.guest import Backend
from tests.live.lossy import FullFuse, Writer, loss_of, of
from tracer.model.failures import Class
from tracer.model.options import Options
from tracer.session import Session

PAGES = 3


@pytest.mark.native
def test_a_fuse_filesystem_that_is_full() -> None:
    """Each request that the daemon refuses is one error."""
    with (
        closing(FullFuse("lossy-fuse")) as disk,
        Session(Options(Backend.TRACEPOINT)) as session,
        Writer(disk.place / "file", PAGES) as writer,
    ):
        assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
        disk.fill()
        assert writer.does(f"store {PAGES}") == "ok"
        disk.write_back()
        found = of(session.failures(), writer)
        assert [(f.verdict.kind, f.errno_name, f.fstype) for f in found] == [
            (Class.WRITEBACK, "ENOSPC", "fuse")
        ] * PAGES
        assert (loss_of(session, writer).errors, loss_of(session, writer).told) == (PAGES, None)
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
