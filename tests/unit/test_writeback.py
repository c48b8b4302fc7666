"""Writes lost at writeback: decoded, counted by file, told of once and brought up to date, named, escaped."""

from __future__ import annotations

import errno
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import replace

import pytest
from failure_samples import REFUSED
from look_back import hour

from tracer.decode.clock import WallClock
from tracer.decode.file_losses import decode
from tracer.diagnosis.classes import decide
from tracer.diagnosis.diagnose import diagnose
from tracer.diagnosis.explainer import Explained, Explainer, Notified, Repeated
from tracer.export.http.groups import Group
from tracer.export.http.landing import page
from tracer.export.json.failures import explained_dict, notified_dict, record, repeated_dict
from tracer.export.json.records import json_line
from tracer.model.failures import Actor, Class, Fact, Failure, FailureSource, Initiator
from tracer.model.host_state import Below, HostState, Mapper
from tracer.model.options import Filters
from tracer.model.writeback import FileLoss, LostFile, Told, file_of
from tracer.probes import writeback
from tracer.ui import sigbus
from tracer.ui.sigbus import notified, repeated, report
from tracer.ui.trace import TraceLines

#: A device that nobody has: nothing is learned from /proc.
LOST = decide(
    replace(
        REFUSED, source=FailureSource.WRITEBACK, pid=0, tid=0, uid=0, comm="", dev=0, inode=131, errno=errno.ENOSPC,
        kernel_error=errno.ENOSPC, errno_from="__filemap_set_wb_err", handler="", offset=0, vm_fault=0,
        signal=None, initiator=Initiator.UNKNOWN,
    )
)  # fmt: skip
MS = 1_000_000
START = LOST.time_ns
TOLD = Told(START + 2100 * MS, Actor(812, 813, "db"), errno.ENOSPC, 26, 1, START + 2100 * MS)
LOSS = FileLoss(START, START + 12 * MS, 7)


def explained(loss: FileLoss | None = LOSS, state: HostState = HostState(), **changes: object) -> Explained:  # noqa: B008
    failure = decide(replace(LOST, **changes))  # type: ignore[arg-type]
    return Explained(failure, state, diagnose(failure, state), loss=loss)


def text(of: Explained) -> str:
    return report(of, 1000).plain


def test_the_kernels_record_of_a_file_is_decoded() -> None:
    key = struct.pack("<QII", 131, 7 << 20, 2)
    clock = WallClock(real=lambda: 1000, monotonic=lambda: 0)
    untold = struct.pack("<13QII16s", 10, 20, 7, *[0] * 12, b"")
    numbers = (10, 20, 7, 2, 30, 40, 812 << 32 | 813, 3, 12288, 4096, 528384, 1, 50, 28, 26)
    told = struct.pack("<13QII16s", *numbers, b"d\xff\0x")
    file = LostFile(131, 7 << 20, 2)
    assert decode([(key, untold)], clock) == {file: FileLoss(1010, 1020, 7)}
    by = Told(1030, Actor(812, 813, "d\udcff"), 28, 26, 2, 1040)
    whole = FileLoss(1010, 1020, 7, by, 3, 12288, 4096, 528384, 1050)
    assert decode([(key, told)], clock) == {file: whole}


def test_the_class_says_whether_anybody_had_the_file_mapped() -> None:
    assert LOST.verdict == (Class.WRITEBACK, "ENOSPC", "")
    assert explained(facts=Fact.UNMAPPED).failure.verdict == (Class.WRITEBACK_UNMAPPED, "ENOSPC", "")
    assert explained(facts=Fact.UNMAPPED, fstype="tmpfs", source=FailureSource.WRITEBACK).failure.verdict[0] is (
        Class.WRITEBACK_UNMAPPED
    )


def test_a_report_says_which_file_how_much_and_that_nobody_was_told() -> None:
    state = HostState(mapped_by=(Mapper(812, "db"), Mapper(9, "log", "c0ffee")), mapped_name="/srv/data")
    shown = text(explained(state=state))
    assert shown.startswith("LOST AT WRITEBACK ")
    for part in ("/srv/data; inode 131", "7 errors of writeback in 12.0ms, for at least one page",
                 "nobody has been told yet", "for writing by db[812], log[9] in container c0ffee",
                 "ENOSPC, recorded for the file by __filemap_set_wb_err",
                 "writeback (ENOSPC)", "thin pool", "copy the file now"):  # fmt: skip
        assert part in shown
    assert "found by device and inode" not in shown
    assert "victim" not in shown


def test_one_error_has_no_span() -> None:
    assert "1 error of writeback, for at least one page" in text(explained(replace(LOSS, errors=1)))
    assert "an error of writeback, for at least one page" in text(explained(None))


def test_bytes_are_told_exactly_where_they_are_known() -> None:
    of = explained(replace(LOSS, ranges=7, bytes=12288, start=4096, end=528384))
    assert "exactly 12.0 KiB, between offsets 0x1000 and 0x81000: 7 errors of writeback in 12.0ms" in text(of)
    loss = explained_dict(of)["loss"]
    assert isinstance(loss, dict)
    assert (loss["bytes"], loss["exact"], loss["start"], loss["end"]) == (12288, True, 4096, 528384)
    assert "at least 12.0 KiB" in text(explained(replace(LOSS, ranges=6, bytes=12288, start=4096, end=528384)))


def test_who_was_told_is_named_and_what_came_after() -> None:
    assert "msync by db[812] was told ENOSPC, 2.10s after the first loss" in text(explained(replace(LOSS, told=TOLD)))
    later = FileLoss(START, START + 2400 * MS, 8, replace(TOLD, count=3))
    shown = text(explained(later))
    assert "3 times in all; 300ms after the last, more was lost, told to nobody yet" in shown


@pytest.mark.parametrize("name", ["", ".../data"])
def test_a_file_without_a_name_has_that_of_its_mappings(name: str) -> None:
    state = HostState(mapped_by=(Mapper(812, "db"),), mapped_name="/srv/other")
    shown = text(explained(state=state, file=name))
    assert "/srv/other, found by device and inode among mapped files; inode 131" in shown


def test_what_ext4_drops_without_a_record_is_told_so() -> None:
    shown = text(explained(facts=Fact.UNRECORDED, errno_from="ext4_writepages"))
    assert "nobody is seen to be: the kernel keeps no error for the file" in shown
    assert "ENOSPC, returned by ext4_writepages" in shown
    assert "mpage_map_and_submit_extent" in shown


@pytest.mark.parametrize(
    ("fstype", "number", "words"),
    [("ext4", errno.EIO, "the device below failed it"), ("nfs4", errno.ENOSPC, "the server or daemon behind it had no"),
     ("nfs4", errno.EDQUOT, "a quota of the server")],
)  # fmt: skip
def test_the_cause_is_by_errno_and_filesystem(fstype: str, number: int, words: str) -> None:
    assert words in explained(fstype=fstype, errno=number, kernel_error=number).diagnosis.cause


@pytest.mark.parametrize(
    ("below", "number", "words", "line", "check"),
    [(Below("thin pool", "vg-pool", 0), errno.EIO, "Extend the thin pool vg-pool", "thin pool vg-pool, 0 B free",
      "dmsetup status vg-pool"),
     (Below("image", "/a b", None), errno.ENOSPC, "Make room on the filesystem that holds /a b", "loop device on /a b",
      "df -h '/a b'")],
)  # fmt: skip
def test_what_is_below_the_filesystem_is_named(below: Below, number: int, words: str, line: str, check: str) -> None:
    of = explained(state=HostState(below=below), errno=number, kernel_error=number)
    assert words in of.diagnosis.remedy
    assert "had no space for it" in of.diagnosis.cause
    assert check in of.diagnosis.check.split("\n")
    assert f"below   {line}" in text(of)
    assert explained_dict(of)["host"]["below"]["name"] == below.name  # type: ignore[index]


def test_a_file_is_explained_once_and_then_brought_up_to_date() -> None:
    losses: dict[LostFile, FileLoss] = {file_of(LOST): LOSS}
    explainer = Explainer(lambda _: True, losses=lambda: losses)
    (first,) = explainer.explain([LOST, replace(LOST, ordinal=2)])
    assert first.loss == LOSS
    assert list(explainer.updates()) == []
    assert list(explainer.repeats({LOST.burst: 3486})) == []  # by file, not by cause
    losses[file_of(LOST)] = replace(LOSS, errors=3486, told=TOLD)
    more, told = explainer.updates()
    assert isinstance(more, Repeated)
    assert (more.count, more.total) == (3479, 3486)
    assert repeated(more).plain.endswith("3486 so far: writeback ENOSPC on /srv/data")
    assert isinstance(told, Notified)
    line = "msync by db[812] was told ENOSPC, 2.10s after the first loss: writeback on /srv/data"
    assert notified(told).plain.endswith(line)
    assert list(explainer.updates()) == []
    assert notified_dict(told)["loss"] == {
        "first_ns": START, "last_ns": START + 12 * MS, "errors": 3486,
        "bytes": None, "exact": False, "start": None, "end": None,
        "told": {"time_ns": TOLD.time_ns, "by": {"pid": 812, "tid": 813, "comm": "db"}, "errno": "ENOSPC",
                 "syscall": "msync", "count": 1, "last_ns": TOLD.last_ns},
        "forgotten_ns": None,
    }  # fmt: skip


def test_that_nobody_will_be_told_is_said_once() -> None:
    losses: dict[LostFile, FileLoss] = {file_of(LOST): LOSS}
    explainer = Explainer(lambda _: True, losses=lambda: losses)
    assert len(list(explainer.explain([LOST]))) == 1
    losses[file_of(LOST)] = gone = replace(LOSS, forgotten_ns=START + 20 * MS)
    (news,) = explainer.updates()
    assert isinstance(news, Notified)
    words = "nobody will be told: the inode has left memory, and its error with it"
    assert notified(news).plain.endswith(f"{words}: writeback on /srv/data")
    found = notified_dict(news)
    assert (found["kind"], found["loss"]["forgotten_ns"]) == ("forgotten", START + 20 * MS)  # type: ignore[index]
    assert list(explainer.updates()) == []
    assert f"told    {words}" in text(explained(gone))
    assert "nobody has been told yet" in text(explained(replace(gone, last_ns=START + 30 * MS)))
    some = replace(LOSS, last_ns=TOLD.last_ns + 300 * MS, told=TOLD, forgotten_ns=TOLD.last_ns + 400 * MS)
    assert "300ms after the last, more was lost, told to nobody ever" in text(explained(some))
    assert [one.unheard for one in (LOSS, gone, some, replace(some, forgotten_ns=0))] == [True, False, False, True]


def test_a_flood_of_files_is_reported_in_part_and_counted_whole() -> None:
    files = [replace(LOST, inode=inode) for inode in range(31)]
    losses = {file_of(file): LOSS for file in files}
    explainer = Explainer(lambda _: True, losses=lambda: losses)
    found = list(explainer.explain(files))
    assert [one.loss for one in found] == [LOSS] * len(found)
    (more,) = explainer.repeats({file.burst: 2 for file in files})
    rest = len(files) - len(found)
    assert (more.other, more.files, more.count) == (True, rest, 2 * rest)
    assert f"writeback ENOSPC on {rest} other files of " in repeated(more).plain


def test_json_has_null_for_the_task_that_is_not_known() -> None:
    found: Mapping[str, object] = json.loads(json_line(explained_dict(explained())))
    assert (found["class"], found["source"], found["errno"]) == ("writeback", "writeback", "ENOSPC")
    assert {found[name] for name in ("pid", "comm", "offset", "address", "path", "handler", "signal")} == {None}
    assert found["loss"] == {"first_ns": START, "last_ns": START + 12 * MS, "errors": 7,
                             "bytes": None, "exact": False, "start": None, "end": None, "told": None,
                             "forgotten_ns": None}  # fmt: skip
    assert record(LOST)["pid"] is None
    assert repeated_dict(Repeated(explained(), 1, 2, 3))["pid"] is None


def test_a_line_of_trace_has_dashes_for_what_is_not_known() -> None:
    words = TraceLines(None).line(LOST).plain.split()
    assert words[1:3] == ["-", "-"]
    assert "writeback" in words
    assert "ENOSPC" in words
    assert words[-3:] == ["__filemap_set_wb_err", "-", "/srv/data"]


def test_the_landing_page_names_no_process_for_what_nobody_is_known_to_have_written() -> None:
    text = page(replace(hour(), groups=(Group(explained(LOSS)),)), "1", sigbus.words)
    (card,) = re.findall('<section id="failures">.*?<details.*?</summary>', text, re.DOTALL)
    assert "writeback ENOSPC" in card and "/srv/data" in card and 'class="who"' not in card
    assert "LOST AT WRITEBACK" in text


def test_odd_names_are_escaped() -> None:
    odd = "a\x1b[31m\n\udcff"
    state = HostState(
        mapped_by=(Mapper(1, odd, odd),), mapped_name=f"/{odd}", mount_source=odd, below=Below("image", odd, None)
    )
    told = replace(TOLD, by=Actor(1, 1, odd))
    for name in ("", f"/{odd}"):
        of = explained(replace(LOSS, told=told), state, file=name, mountpoint=f"/{odd}", fstype=odd)
        for shown in (text(of), notified(Notified(of, replace(LOSS, told=told), told)).plain):
            assert "".join(shown.split("\n")).isprintable()
        assert json_line(explained_dict(of)).isascii()


@pytest.mark.parametrize(
    ("filters", "option"),
    [(Filters(pids=(1,)), "--pid"), (Filters(comms=("a",)), "--comm"), (Filters(handlers=("a",)), "--handler")],
)
def test_filters_that_no_loss_can_be_held_against_are_named(filters: Filters, option: str) -> None:
    (note,) = writeback.notes(filters)
    assert f"not told with {option}:" in note


def test_filters_on_filesystems_leave_losses_in() -> None:
    assert list(writeback.notes(Filters(fs=("ext4",), mounts=("/srv",)))) == []
    assert isinstance(LOST, Failure)
