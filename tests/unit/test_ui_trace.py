"""The lines of a trace: every field, and which give way."""

from __future__ import annotations

import errno
from dataclasses import replace

from failure_samples import REFUSED, refused
from samples import event
from shown import render

from tracer.diagnosis.classes import decide
from tracer.model.calls import Outcome
from tracer.model.failures import Fact
from tracer.ui.trace import TraceLines


def test_a_trace_line_has_every_field_and_the_whole_file_where_width_is_no_matter() -> None:
    long = "/srv/" + "directory/" * 40 + "file"
    lines = TraceLines(None)
    titles = "TIME PID COMM FSTYPE MOUNT PATH HANDLER LATENCY OUTCOME ERRNO FROM OFFSET FILE"
    assert " ".join(lines.header().plain.split()) == titles
    fields = lines.line(event(file=long)).plain.split()
    assert fields[0].endswith(".123")
    expected = "4242 writer ext4 /srv first_write ext4_page_mkwrite 12.3ms sigbus - - 0x3000"
    assert fields[1:] == [*expected.split(), long]


def test_trace_columns_stand_below_their_titles() -> None:
    for width in (80, 120, 200):
        lines = TraceLines(width)
        header, line = lines.header().plain, lines.line(event()).plain
        assert line[header.index("FILE") :] == "/srv/data/file"
        assert line[header.index("OUTCOME") :].startswith("sigbus")
        assert line[: header.index("PID") + 3].endswith("4242")


def test_a_trace_line_of_80_columns_tells_who_how_long_what_and_where() -> None:
    lines = TraceLines(80)
    assert " ".join(lines.header().plain.split()) == "TIME PID COMM LATENCY OUTCOME ERRNO FILE"
    file = "/srv/data/base/16384/a_large_file_of_a_database"
    assert lines.line(event(file=file)).plain.split()[-1].endswith("database")


def test_a_number_is_never_cut() -> None:
    assert "0x123456789abcdef000" in TraceLines(120).line(replace(event(), offset=0x123456789ABCDEF000)).plain


def test_an_unlinked_file_and_one_without_a_name_are_told() -> None:
    assert TraceLines(None).line(replace(event(), deleted=True)).plain.endswith("/srv/data/file (deleted)")
    assert TraceLines(None).line(event(file="")).plain.endswith("inode 77")


def test_a_failure_tells_class_errno_and_who_returned_it() -> None:
    line = TraceLines(None).line(refused(errno.ENOSPC)).plain
    assert "refused ENOSPC ext4_da_reserve_space 0x3000 /srv/data" in " ".join(line.split())
    inferred = TraceLines(None).line(decide(replace(REFUSED, facts=Fact.READ_ONLY))).plain
    assert "refused EROFS inferred" in " ".join(inferred.split())
    unknown = TraceLines(None).line(REFUSED).plain
    assert "refused - -" in " ".join(unknown.split())


def test_a_failure_stands_out_in_a_trace() -> None:
    assert "\x1b[1;31mrefused" in render(TraceLines(200).line(REFUSED), colours=True)[0]
    assert "\x1b[1;31m" not in render(TraceLines(200).line(event(outcome=Outcome.WRITABLE)), colours=True)[0]
