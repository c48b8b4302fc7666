"""Writes that are accepted and then lost at writeback: each error counted, and who was told, or that nobody was."""

from __future__ import annotations

import errno
import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.guest import BACKENDS, NO_LOSS, tracing
from tests.live.lossy import KERNEL, FullBelow, Writer, agree, full_below, loss_of, lost_but_for_missed, missed, of
from tracer.diagnosis.explainer import Explainer, Notified, Repeated
from tracer.model.failures import Class, FailureSource
from tracer.model.hooks import Backend
from tracer.model.host_state import Below, Mapper
from tracer.model.options import Options
from tracer.model.snapshot import Snapshot
from tracer.model.writeback import FileLoss, file_of
from tracer.session import Session

#: Pages of one file, of another, and of a burst. The extents of few are in the inode: no other block is lost.
FEW, MORE, BURST = 2, 3, 211
FLOOD = 20011
#: What the loop device makes of it, and ext4_finish_bio of any error.
ERRNO = "ENOSPC" if KERNEL >= (6, 12) else "EIO"

#: The programs are the same on every backend: what hooks on functions add is shown in guests for each change.
MORE_NATIVELY = (pytest.mark.nightly, pytest.mark.here)


@pytest.fixture
def disk() -> Iterator[FullBelow]:
    with full_below("lossy") as made:
        yield made


@pytest.fixture(scope="module", params=[*BACKENDS, pytest.param(Backend.TRACEPOINT, marks=pytest.mark.native)], ids=str)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    with Session(Options(request.param)) as opened:
        yield opened
        assert lost_but_for_missed(opened.finish()) == NO_LOSS


def counted(snapshot: Snapshot, disk: FullBelow) -> dict[tuple[Class, str], int]:
    """What was counted of a filesystem: by class and errno."""
    return {
        (series.kind, series.errno): number
        for series, number in snapshot.failures.items()
        if series.mountpoint == str(disk.place)
    }


def errors(pages: int, kind: Class = Class.WRITEBACK) -> dict[tuple[Class, str], int]:
    """What so many pages are counted as: ext4_end_bio has an error for a bio, ext4_finish_bio one for its page."""
    return {(kind, ERRNO): 2 * pages}


def most_told(loss: FileLoss) -> int:
    """How many are told one by one: 16, then one in 100 ms."""
    return 17 + (loss.last_ns - loss.first_ns) // 100_000_000


@pytest.mark.newest
def test_each_error_is_counted_and_nobody_is_told_who_does_not_ask(session: Session, disk: FullBelow) -> None:
    before = session.snapshot()
    with Writer(disk.place / "silent", MORE) as writer:
        assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
        disk.fill()
        assert writer.does(f"store {MORE}") == "ok"
        disk.write_back()
        loss = loss_of(session, writer)
        found = of(session.failures(), writer)
        now = session.snapshot()
        counts = counted(now.since(before), disk)
        assert agree(counts, errors(MORE), missed(now) - missed(before))
        assert Counter((f.verdict.kind, f.errno_name) for f in found) == counts
        assert (loss.errors, loss.told) == (len(found), None)
        assert {(f.source, f.pid, f.errno_from) for f in found} == {
            (FailureSource.WRITEBACK, 0, "__filemap_set_wb_err")
        }
        explainer = Explainer(session.has_ended, losses=session.file_losses)
        explained = next(iter(explainer.explain(found)))
        assert explained.state.mapped_by == (Mapper(writer.pid, writer.comm),)
        assert explained.state.mapped_name == str(writer.file)
        assert explained.state.below == Below("image", str(disk.image), None)
        file = file_of(found[0])
    assert session.snapshot().since(before).forgotten == 0
    assert list(explainer.updates()) == []
    writer.file.unlink()  # nobody has it open: the inode is evicted, and the error with it
    assert session.snapshot().since(before).forgotten == 1
    (told,) = explainer.updates()
    assert isinstance(told, Notified)
    forgotten = session.file_losses()[file]
    assert (told.told, told.loss, forgotten.told) == (None, forgotten, None)
    assert forgotten.last_ns < forgotten.forgotten_ns <= time.time_ns()
    assert (session.snapshot().since(before).forgotten, list(explainer.updates())) == (1, [])


@pytest.mark.newest
@pytest.mark.parametrize("call", ["msync", pytest.param("fsync", marks=MORE_NATIVELY)])
def test_who_is_told_is_named(session: Session, disk: FullBelow, call: str) -> None:
    before = session.snapshot()
    with Writer(disk.place / "told", FEW) as writer:
        assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
        disk.fill()
        assert writer.does(f"store {FEW}") == "ok"
        disk.write_back()
        # The kernel tells each description once, of the last error.
        assert [writer.does(call), writer.does(call)] == [ERRNO, "ok"]
        loss = loss_of(session, writer)
        comm = writer.comm
    now = session.snapshot()
    assert agree({"errors": loss.errors}, {"errors": 2 * FEW}, missed(now) - missed(before))
    assert loss.told is not None
    assert (loss.told.by.pid, loss.told.by.comm, loss.told.count) == (writer.pid, comm, 1)
    assert errno.errorcode[loss.told.errno] == ERRNO
    assert loss.told.syscall == {"msync": 26, "fsync": 74}[call]
    assert now.since(before).told == 1
    assert loss.first_ns <= loss.last_ns <= loss.told.time_ns == loss.told.last_ns
    (disk.place / "told").unlink()
    assert session.snapshot().since(before).forgotten == 0  # somebody knows


@pytest.mark.nightly
@pytest.mark.here
def test_plain_writes_to_files_that_nobody_maps_are_counted_apart(session: Session, disk: FullBelow) -> None:
    before = session.snapshot()
    with Writer(disk.place / "mapped", FEW) as mapping, Writer(disk.place / "plain", MORE) as plain:
        assert [mapping.does("map"), mapping.does("fsync"), plain.does("fsync")] == ["ok"] * 3
        disk.fill()
        assert [mapping.does(f"store {FEW}"), plain.does(f"write {MORE}")] == ["ok", "ok"]
        disk.write_back()
        told, now = session.failures(), session.snapshot()
        counts = counted(now.since(before), disk)
        both = {**errors(FEW), **errors(MORE, Class.WRITEBACK_UNMAPPED)}
        assert agree(counts, both, missed(now) - missed(before))
        of_mapped = sum(number for (kind, _), number in counts.items() if kind is Class.WRITEBACK)
        assert (len(of(told, mapping)), of(told, plain)) == (of_mapped, [])
        assert loss_of(session, mapping).errors == of_mapped
        assert loss_of(session, plain).errors == sum(counts.values()) - of_mapped


@pytest.mark.nightly
@pytest.mark.here
def test_a_burst_is_one_report_that_is_brought_up_to_date(session: Session, disk: FullBelow) -> None:
    explainer, before = Explainer(session.has_ended, losses=session.file_losses), session.snapshot()
    with Writer(disk.place / "burst", BURST) as writer:
        assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
        disk.fill()
        writer.does(f"store {FEW}")
        disk.write_back()
        explained = list(explainer.explain(of(session.failures(), writer)))
        assert {one.diagnosis.errno for one in explained} == {ERRNO}
        first = explained[-1].loss
        assert first is not None
        writer.does(f"store {BURST}")
        disk.write_back()
        assert writer.does("msync") != "ok"
        told_of = of(session.failures(), writer)
        more, told = explainer.updates()
        assert list(explainer.updates()) == []
    assert isinstance(more, Repeated)
    assert isinstance(told, Notified)
    assert told.told is not None
    # The first pages are clean since they were lost, and are lost again; so is the block of extents, on 5.10 twice.
    whole = 2 * FEW + 2 * BURST + (1 if KERNEL >= (6, 1) else 2)
    assert agree({"errors": more.total}, {"errors": whole}, missed(session.snapshot()) - missed(before))
    assert more.total == more.count + first.errors
    assert 0 < len(told_of) <= most_told(told.loss)
    assert (told.told.by.pid, told.told.count) == (writer.pid, 1)
    assert file_of(told.first.failure) == file_of(explained[0].failure)


@pytest.mark.newest
def test_what_is_lost_after_the_mapping_is_gone(session: Session, disk: FullBelow) -> None:
    """Only hooks on functions see mappings come: with tracepoints it is a file that nobody had mapped."""
    before = session.snapshot()
    with Writer(disk.place / "gone", MORE) as writer:
        assert writer.does("fsync") == "ok"
        disk.fill()
        assert [writer.does(step) for step in ("map", f"store {MORE}", "unmap")] == ["ok", "ok", "ok"]
    disk.write_back()
    kind = Class.WRITEBACK_UNMAPPED if session.backend is Backend.TRACEPOINT else Class.WRITEBACK
    now = session.snapshot()
    counts = counted(now.since(before), disk)
    assert agree(counts, errors(MORE, kind), missed(now) - missed(before))
    told = 0 if session.backend is Backend.TRACEPOINT else sum(counts.values())
    assert len(of(session.failures(), writer)) == told


@pytest.mark.native
def test_the_command_tells_both(disk: FullBelow) -> None:
    with Writer(disk.place / "db", FEW) as db, Writer(disk.place / "log", MORE) as log:
        assert [writer.does(step) for writer in (db, log) for step in ("map", "fsync")] == ["ok"] * 4
        disk.fill()
        with tracing("sigbus", "--json", "--fs", "ext4", "--mount", str(disk.place)) as command:
            assert [db.does(f"store {FEW}"), log.does(f"store {MORE}")] == ["ok", "ok"]
            disk.write_back()
            assert [db.does("msync"), log.does("fsync")] == [ERRNO, ERRNO]
            command.send_signal(signal.SIGINT)
            output, notices = command.communicate(timeout=600)
    assert command.returncode == 0, notices
    lines = [json.loads(line) for line in output.splitlines()]
    skipped = sum(map(int, re.findall(r"missed_probe (\d+)", notices)))
    for writer, pages, call in ((db, FEW, "msync"), (log, MORE, "fsync")):
        mine = [line for line in lines if line["file"] == str(writer.file)]
        assert mine[0]["class"] == "writeback"
        assert (mine[0]["pid"], mine[0]["errno"]) == (None, ERRNO)
        # How much of it the first report has is up to who is faster; the last one has all.
        last = next(line["loss"] for line in reversed(mine) if "loss" in line)
        assert agree({"errors": last["errors"]}, {"errors": 2 * pages}, skipped)
        assert (last["told"]["syscall"], last["told"]["by"]["pid"]) == (call, writer.pid)
        assert all(line["total"] <= last["errors"] for line in mine if line["kind"] == "repeated")


@pytest.mark.native
def test_a_flood_is_counted_whole_and_told_in_few(disk: FullBelow) -> None:
    """Pages that lie together share requests, so that there are fewer errors of those than of pages."""
    with Session(Options(Backend.TRACEPOINT)) as session, Writer(disk.place / "flood", FLOOD, 4096) as writer:
        assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
        disk.fill()
        assert writer.does(f"store {FLOOD}") == "ok"
        disk.write_back()
        told = of(session.failures(), writer)
        loss = loss_of(session, writer)
        final = session.finish()
    assert FLOOD - missed(final) <= loss.errors < 2 * FLOOD
    assert sum(counted(final, disk).values()) == loss.errors
    assert 0 < len(told) <= most_told(loss)
    assert lost_but_for_missed(final) == NO_LOSS


@pytest.mark.native
def test_a_file_that_was_renamed_and_deleted(disk: FullBelow) -> None:
    with Session(Options(Backend.TRACEPOINT)) as session, Writer(disk.place / "old", FEW) as writer:
        assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
        disk.fill()
        (disk.place / "directory").mkdir()
        writer.file.rename(disk.place / "directory" / "new")
        (disk.place / "directory" / "new").unlink()
        assert writer.does(f"store {FEW}") == "ok"
        disk.write_back()
        found = [failure for failure in session.failures() if failure.mountpoint == str(disk.place)]
    assert {(f.file, f.deleted) for f in found} == {(f"{disk.place}/directory/new", True)}


@pytest.mark.native
def test_an_inode_that_was_evicted_and_read_again_has_no_error_to_tell(disk: FullBelow) -> None:
    with Session(Options(Backend.TRACEPOINT)) as session:
        with Writer(disk.place / "cold", FEW) as writer:
            assert [writer.does(step) for step in ("map", "fsync")] == ["ok", "ok"]
            disk.fill()
            assert writer.does(f"store {FEW}") == "ok"
            disk.write_back()
            assert loss_of(session, writer).forgotten_ns == 0
        assert session.snapshot().forgotten == 0
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        with Writer(writer.file, FEW) as again:
            assert [again.does("map"), again.does("msync")] == ["ok", "ok"]
            loss = loss_of(session, again)
        assert (loss.forgotten_ns > loss.last_ns, loss.told, session.snapshot().forgotten) == (True, None, 1)


@pytest.mark.native
def test_losses_of_unmapped_files_are_told_when_asked_for(disk: FullBelow) -> None:
    with Session(Options(Backend.TRACEPOINT, all_writes=True)) as session, Writer(disk.place / "plain", FEW) as plain:
        assert plain.does("fsync") == "ok"
        disk.fill()
        assert plain.does(f"write {FEW}") == "ok"
        disk.write_back()
        found = of(session.failures(), plain)
        assert Counter((f.verdict.kind, f.errno_name) for f in found) == errors(FEW, Class.WRITEBACK_UNMAPPED)
