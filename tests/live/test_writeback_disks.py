"""A disk that fails under files whose writers have gone: nobody is told, and every error is counted."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.live.bad_disk import BadDisk
from tests.live.guest import NO_LOSS, ROOT, Backend, Options, run
from tests.live.late_writer import STRIDE
from tests.live.lossy import KERNEL, ThinPool, Writer, agree, bad_bitmap, loss_of, lost_but_for_missed, missed, of
from tracer.diagnosis.explainer import Explainer
from tracer.model.failures import Class, Fact
from tracer.model.host_state import Below
from tracer.model.writeback import file_of
from tracer.session import Session

PAGES = 61
FEW = 3
#: More than the 512 blocks of a pool of 32 MiB.
STORED = 601
#: Blocks of extents of that many pages, 340 in each, and the one above.
EXTENTS = 3


@pytest.mark.nightly
def test_stored_closed_and_lost_when_the_disk_fails(backend: Backend) -> None:
    """The blocks are there already, so that nothing but the pages has to be written: one error a page, one a bio."""
    ROOT.mkdir(exist_ok=True)
    disk = BadDisk(f"late-{backend}")
    with Session(Options(backend)) as session:
        with Writer(disk.place / "pages", PAGES) as writer:
            steps = (f"write {PAGES}", "fsync", "map", f"store {PAGES}", "unmap")
            assert [writer.does(step) for step in steps] == ["ok"] * len(steps)
        disk.fail()
        os.sync()
        found = [failure for failure in session.failures() if failure.file == str(writer.file)]
        (explained,) = Explainer(session.has_ended, losses=session.file_losses).explain(found)
        loss = session.file_losses()[file_of(found[0])]
        final = session.finish()
    counts = Counter({s.errno: n for s, n in final.failures.items() if (s.kind, s.fstype) == (Class.WRITEBACK, "ext4")})
    assert agree(counts, {"EIO": 2 * PAGES}, missed(final))
    assert (loss.errors, loss.told) == (counts["EIO"], None)
    assert (explained.state.mapped_by, explained.diagnosis.errno) == ((), "EIO")
    assert "the device below failed it" in explained.diagnosis.cause
    assert lost_but_for_missed(final) == NO_LOSS


@pytest.mark.native
def test_what_ext4_promised_and_cannot_allocate() -> None:
    """It drops the pages, one extent at an attempt, and records nothing for the file: no call fails after that."""
    with (
        bad_bitmap("promised") as place,
        Session(Options(Backend.TRACEPOINT)) as session,
        Writer(place / "file", FEW) as writer,
    ):
        assert [writer.does(step) for step in ("map", f"store {FEW}")] == ["ok", "ok"]
        # Each tries twice: once for all that is dirty, then for what still is.
        for _ in range(FEW):
            run("sync", "-f", str(place))
        assert [writer.does(call) for call in ("msync", "fsync")] == ["ok", "ok"]
        found = of(session.failures(), writer)
        loss = loss_of(session, writer)
        assert [read_back(writer.file, page) for page in range(FEW)] == [b"\0"] * FEW
    assert {(f.verdict.kind, f.facts, f.errno_from) for f in found} == {
        (Class.WRITEBACK, Fact.UNRECORDED, "ext4_writepages")
    }
    # The checksum is bad; the group counts as corrupt from then on, and there is no other.
    assert [f.errno_name for f in found] == ["EBADMSG", *["ENOSPC"] * (FEW - 1)]
    assert (len(found), loss.errors, loss.told) == (FEW, FEW, None)


@pytest.mark.nightly
def test_an_xfs_on_a_disk_that_fails(backend: Backend) -> None:
    """From 7.0 on the kernel tells which bytes."""
    ROOT.mkdir(exist_ok=True)
    disk = BadDisk(f"late-xfs-{backend}", "xfs", 320)
    with Session(Options(backend)) as session:
        with Writer(disk.place / "pages", PAGES) as writer:
            steps = (f"write {PAGES}", "fsync", "map", f"store {PAGES}", "unmap")
            assert [writer.does(step) for step in steps] == ["ok"] * len(steps)
        disk.fail()
        os.sync()
        found = of(session.failures(), writer)
        assert {(f.verdict.kind, f.errno_name, f.fstype) for f in found} == {(Class.WRITEBACK, "EIO", "xfs")}
        loss = session.file_losses()[file_of(found[0])]
        final = session.finish()
    assert agree({"errors": loss.errors}, {"errors": PAGES}, missed(final))
    known = (PAGES * 4096, 0, (PAGES - 1) * STRIDE + 4096) if KERNEL >= (7, 0) else (0, 0, 0)
    assert (loss.bytes, loss.start, loss.end) == known


def read_back(file: Path, page: int) -> bytes:
    """A page's first byte; nothing where the filesystem has lost track of it."""
    with suppress(OSError), file.open("rb") as stream:
        return os.pread(stream.fileno(), 1, page * STRIDE)
    return b""


@pytest.mark.nightly
def test_a_thin_pool_that_is_full(backend: Backend) -> None:
    """Each page needs a block of the pool of its own. What was lost is read back from the device."""
    with closing(ThinPool(f"thin-{backend}")) as pool, Session(Options(backend)) as session:
        with Writer(pool.place / "file", STORED) as writer:
            assert [writer.does(step) for step in ("map", "fsync", f"store {STORED}")] == ["ok", "ok", "ok"]
            pool.write_back()
            found = [failure for failure in session.failures() if failure.file == str(writer.file)]
            (explained,) = Explainer(session.has_ended, losses=session.file_losses).explain(found[:1])
            assert explained.state.below == Below("thin pool", f"thin-{backend}-pool", 0)
            assert writer.does("msync") != "ok"
            loss = session.file_losses()[file_of(found[0])]
        assert {failure.verdict.kind for failure in found} == {Class.WRITEBACK}
        assert found[0].errno_name == "ENOSPC"
        assert loss.told is not None
        assert (loss.told.by.pid, loss.told.count) == (writer.pid, 1)
        pool.forget()
        kept = sum(read_back(writer.file, page) == b"\1" for page in range(STORED))
    # A page that cannot be written takes those along that were to get their blocks together with it.
    assert 0 < loss.errors <= 2 * (STORED - kept) + EXTENTS
    assert kept < STORED
