"""The views: right numbers, in every width, whatever the names."""

from __future__ import annotations

import errno
import io
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
from failure_samples import REFUSED, refused
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType
from samples import event, series, snapshot

from tracer.causes import decide
from tracer.failure import Fact
from tracer.histogram import BUCKETS, LOWER_NS, Histogram, bucket_of
from tracer.model import Backend, Hook, Initiator, Loss, Outcome, Path, Snapshot, WpOutcome
from tracer.ui.calls import SORTS, call_rows, calls_table
from tracer.ui.count import CountView
from tracer.ui.hist import FINE, HistogramsView, bars
from tracer.ui.status import status
from tracer.ui.table import Column, fit, number
from tracer.ui.top import TopView
from tracer.ui.trace import TraceLines
from tracer.ui.wp import wp_table

WIDTHS = (20, 40, 60, 80, 120, 200)
HOSTILE = "a\x1b[31m\nb[red]\u202ec\udcff"
ESCAPED = r"a\x1b[31m\x0ab[red]\u202ec\xff"


def render(view: RenderableType, width: int = 200, height: int | None = None, colours: bool = False) -> list[str]:
    """The lines of ``view`` on a console as the command line has it, checked to keep to the width."""
    console = Console(
        width=width,
        height=height,
        markup=False,
        highlight=False,
        emoji=False,
        force_terminal=colours,
        _environ={},
    )
    with console.capture() as capture:
        console.print(view, height=height)
    lines = capture.get().splitlines()
    if not colours:
        assert max((cell_len(line) for line in lines), default=0) <= width
        assert all(line.isprintable() for line in lines)
    return lines


def table_of(lines: list[str]) -> list[dict[str, str]]:
    """The rows below the first header that begins with DEVICE or MOUNT, by column title."""
    start = next(i for i, line in enumerate(lines) if line.split()[:1] in (["DEVICE"], ["MOUNT"]))
    titles = lines[start].split()
    rows = []
    for line in lines[start + 1 :]:
        if len(cells := line.split()) != len(titles):
            break
        rows.append(dict(zip(titles, cells, strict=True)))
    return rows


@pytest.fixture
def busy() -> Snapshot:
    """Two seconds: 7 fast first writes of which 2 failed, 3 slow writes after a read, elsewhere 5 of 1 ms."""
    return snapshot(
        {
            series(): Histogram.of(*[1000] * 5),
            series(outcome=Outcome.SIGBUS): Histogram.of(1000, 1000),
            series(path=Path.WRITE_PROTECT): Histogram.of(*[50_000_000] * 3),
            series("/very/long/mount/point/of/a/database"): Histogram.of(*[1_000_000] * 5),
        },
        elapsed_ns=2 * 10**9,
    )


def test_a_row_sums_up_the_calls_of_a_filesystem_handler_and_path(busy: Snapshot) -> None:
    rows = table_of(render(calls_table(call_rows(busy))))
    assert rows[0] == {
        "DEVICE": "8:1",
        "MOUNT": "/srv",
        "FSTYPE": "ext4",
        "HANDLER": "ext4_page_mkwrite",
        "PATH": "first_write",
        "CALLS/S": "3.5",
        "P50": "940ns",  # the middle of the bucket from 861 ns on
        "P99": "940ns",
        "MAX": "1.0us",
        "FAILED": "2",
    }
    assert [(row["MOUNT"], row["PATH"], row["CALLS/S"], row["MAX"]) for row in rows[1:]] == [
        ("/very/long/mount/point/of/a/database", "first_write", "2.5", "1.0ms"),
        ("/srv", "write_protect", "1.5", "50.0ms"),
    ]


def test_initiators_are_merged_in_a_row() -> None:
    by_kernel = replace(series(), initiator=Initiator.KERNEL)
    (row,) = call_rows(snapshot({series(): Histogram.of(5), by_kernel: Histogram.of(7, 8)}))
    assert row.calls == 3


@pytest.mark.parametrize("sort", SORTS)
def test_rows_are_sorted_by_any_number_either_way(busy: Snapshot, sort: str) -> None:
    values = [SORTS[sort](row) for row in call_rows(busy, sort)]
    assert values == sorted(values, reverse=True)
    assert len(set(values)) > 1
    assert [SORTS[sort](row) for row in call_rows(busy, sort, reverse=True)] == values[::-1]


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (60, "MOUNT FSTYPE PATH CALLS/S P50 P99 FAILED"),
        (80, "MOUNT FSTYPE PATH CALLS/S P50 P99 MAX FAILED"),
        (120, "DEVICE MOUNT FSTYPE HANDLER PATH CALLS/S P50 P99 MAX FAILED"),
        (200, "DEVICE MOUNT FSTYPE HANDLER PATH CALLS/S P50 P99 MAX FAILED"),
    ],
)
def test_columns_give_way_in_the_order_of_the_policy(busy: Snapshot, width: int, titles: str) -> None:
    lines = render(calls_table(call_rows(busy)), width)
    assert lines[0].split() == titles.split()
    assert [row["CALLS/S"] for row in table_of(lines)] == ["3.5", "2.5", "1.5"]
    assert [row["FAILED"] for row in table_of(lines)] == ["2", "0", "0"]


def test_the_mount_point_is_shortened_from_the_left(busy: Snapshot) -> None:
    mounts = [row["MOUNT"] for row in table_of(render(calls_table(call_rows(busy)), 80))]
    assert mounts[0] == "/srv"
    assert mounts[1].startswith("…") and "/very/long/mount/point/of/a/database".endswith(mounts[1][1:])


def test_a_filesystem_without_a_visible_mount_is_told_by_its_device() -> None:
    (row,) = table_of(render(calls_table(call_rows(snapshot({series(mountpoint=""): Histogram.of(5)})))))
    assert row["MOUNT"] == "(8:1)"


def test_the_column_of_by_names_who_and_rows_are_split_by_it() -> None:
    calls = {replace(series(), who=f"db[{pid}]"): Histogram.of(5) for pid in (11, 13)}
    for width in (60, 80, 200):
        rows = table_of(render(calls_table(call_rows(snapshot(calls)), who="PROCESS"), width))
        assert {row["PROCESS"] for row in rows} == {"db[11]", "db[13]"}


@pytest.mark.parametrize("width", WIDTHS)
def test_every_view_keeps_to_its_width_with_hostile_names(width: int) -> None:
    name = HOSTILE * 9
    hostile = replace(series(mountpoint=name), fstype=name, handler=name, who=name)
    counts = replace(
        snapshot({hostile: Histogram.of(5), series(): Histogram.of(10**11)}, lost=10**12),
        hooks=(Hook(name, name, Backend.KPROBE, attached=False, detail=name),),
        notes=(name,),
    )
    happened = replace(event(file=name, comm=name), fstype=name, handler=name, mountpoint=name)
    render(TopView(counts, counts, [happened] * 9, who="FILE"), width)
    render(HistogramsView(counts, by_outcome=True), width)
    render(CountView(counts, who="FILE"), width)
    render(TraceLines(width).header(), width)
    render(TraceLines(width).line(happened), width)


def test_hostile_names_are_shown_escaped() -> None:
    hostile = replace(series(mountpoint=HOSTILE), who=HOSTILE)
    counts = replace(snapshot({hostile: Histogram.of(5)}), notes=(HOSTILE,))
    lines = render(TopView(counts, counts, [replace(REFUSED, file=HOSTILE, comm=HOSTILE[:9])], who="FILE"), 400)
    row = next(line for line in lines if "ext4_page_mkwrite" in line)
    assert row.count(ESCAPED) == 2
    assert f"note: {ESCAPED}" in lines
    assert lines[-1].endswith(ESCAPED)


def test_a_full_screen_shows_as_many_rows_as_it_has_room_for_and_tells_of_the_others() -> None:
    counts = snapshot({series(f"/mnt/{number}"): Histogram.of(5) for number in range(100)})
    view = TopView(counts, counts, [REFUSED] * 9, full_screen=True, hint="q quit")
    lines = render(view, 80, 30)
    assert len(lines) <= 30
    shown = sum("/mnt/" in line for line in lines)
    assert shown >= 8
    assert f"... {100 - shown} more" in lines
    assert lines[-1] == "q quit"
    assert sum("4242" in line for line in lines) == 5


@pytest.mark.parametrize("height", [1, 3, 12])
def test_a_screen_that_is_too_small_is_no_error(height: int) -> None:
    counts = snapshot({series(f"/mnt/{number}"): Histogram.of(5) for number in range(9)})
    assert render(TopView(counts, counts, full_screen=True), 5, height)


def test_top_without_calls_says_so() -> None:
    assert "no calls" in render(TopView(snapshot({}), snapshot({})))


def test_losses_are_shown_even_when_there_are_none_and_by_kind_and_in_red_when_there_are() -> None:
    assert render(next(status(snapshot({}))))[0].startswith("lost: 0  ")
    lost = snapshot({}, lost=7)
    lost = replace(lost, lost={**lost.lost, Loss.MISSED_PROBE: 2})
    assert render(next(status(lost)))[0].startswith("lost: 9 (events_full 7, missed_probe 2)  ")
    assert "\x1b[1;31mlost: 9" in render(next(status(lost)), colours=True)[0]


def test_losses_shown_by_top_are_those_since_the_start() -> None:
    lines = render(TopView(counts=snapshot({}), total=snapshot({}, lost=7)))
    assert any(line.startswith("lost: 7") for line in lines)


def test_hooks_that_are_not_attached_are_named_with_the_reason() -> None:
    hooks = (
        Hook("do_page_mkwrite", "do_page_mkwrite", Backend.KPROBE, attached=True),
        Hook("do_wp_page", "do_wp_page", Backend.KPROBE, attached=False, detail="inlined"),
    )
    (line,) = render(next(status(replace(snapshot({}), hooks=hooks))))
    assert line.endswith("backend: kprobe, hooks: 1 of 2; not attached: do_wp_page (inlined)")


@pytest.mark.parametrize("width", [60, 80])
def test_wp_faults_are_counted_by_outcome(width: int) -> None:
    faults = replace(
        snapshot({}, elapsed_ns=2 * 10**9), wp_faults=dict(zip(WpOutcome, (3, 50_000, 7, 0, 2), strict=True))
    )
    header, counts, rates = (line.split() for line in render(wp_table(faults), width))
    assert header == ["WP", "FAULTS", "SHARED", "REUSED", "COPIED", "UNCHANGED", "FAILED"]
    assert counts == ["count", "3", "50.0k", "7", "0", "2"]
    assert rates == ["per", "second", "1.5", "25.0k", "3.5", "0", "1"]
    assert render(wp_table(faults, exact=True))[1].split() == ["count", "3", "50000", "7", "0", "2"]


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


def test_counts_are_exact_and_by_full_key() -> None:
    calls = {
        series(): Histogram.of(*[5] * 10_007),
        series(outcome=Outcome.SIGBUS): Histogram.of(5),
        replace(series(), initiator=Initiator.REMOTE): Histogram.of(5, 6),
    }
    lines = render(CountView(snapshot(calls)))
    assert sorted(tuple(line.split()) for line in lines[1:4]) == [
        ("8:1", "/srv", "ext4", "ext4_page_mkwrite", "first_write", "remote", "writable", "2"),
        ("8:1", "/srv", "ext4", "ext4_page_mkwrite", "first_write", "user", "sigbus", "1"),
        ("8:1", "/srv", "ext4", "ext4_page_mkwrite", "first_write", "user", "writable", "10007"),
    ]
    assert "10010 calls in 1.00s, 0 in flight" in lines
    assert any(line.startswith("lost: 0") for line in lines)


def test_a_count_of_80_columns_keeps_the_outcome_and_the_number() -> None:
    lines = render(CountView(snapshot({series("/mnt/a/long/mount/point"): Histogram.of(*[5] * 10_007)})), 80)
    assert {"MOUNT", "PATH", "OUTCOME", "CALLS"} <= set(lines[0].split())
    assert lines[1].split()[-1] == "10007"


def test_a_histogram_tells_its_key_statistics_and_buckets() -> None:
    counts = snapshot(
        {
            series(): Histogram.of(*[4200] * 30, *[9000] * 15),
            series(outcome=Outcome.SIGBUS): Histogram.of(4200),
        }
    )
    lines = render(HistogramsView(counts), 80)
    assert lines[0] == "/srv ext4 8:1 ext4_page_mkwrite first_write"
    assert lines[1].startswith("count 46  mean 5.8us  p50 4.") and lines[1].endswith("max 9.0us")
    rows = [line.split() for line in lines[2:-1]]
    assert [row[3] for row in rows] == ["31", "0", "0", "0", "15"]
    assert rows[0][0] == "4.1us"
    assert lines[2].endswith("  " + "█" * 59)
    assert len(rows[1]) == 4
    assert 0.45 < len(rows[4][4]) / len(rows[0][4]) < 0.55


def test_a_histogram_for_each_outcome_only_when_asked() -> None:
    counts = snapshot({series(): Histogram.of(5), series(outcome=Outcome.SIGBUS): Histogram.of(5)})
    assert sum(line.startswith("count ") for line in render(HistogramsView(counts))) == 1
    assert sum(line.startswith("count ") for line in render(HistogramsView(counts, by_outcome=True))) == 2


latencies = st.lists(st.integers(min_value=0, max_value=10**12), min_size=1, max_size=30)


@given(latencies, st.booleans())
def test_bars_hold_every_call_once_in_adjoining_ranges(found: list[int], fine: bool) -> None:
    drawn = bars(Histogram.of(*found), fine=fine)
    assert sum(bar.count for bar in drawn) == len(found)
    for bar in drawn:
        top = bar.high if bar.high is not None else max(found) + 1
        assert bar.count == sum(bar.low <= ns < top for ns in found)
    assert all(bar.high == following.low for bar, following in pairwise(drawn))
    assert drawn[-1].count
    assert drawn[0].count


@given(latencies)
def test_bars_are_octaves_just_where_the_range_is_wide(found: list[int]) -> None:
    histogram = Histogram.of(*found)
    span = bucket_of(max(found)) - bucket_of(min(found)) + 1
    drawn = bars(histogram)
    if span <= FINE:
        assert drawn == bars(histogram, fine=True)
        return
    assert len(drawn) <= BUCKETS // 4 + 1
    for bar in drawn:
        if bar.low and bar.high is not None:
            assert bar.high == pytest.approx(2 * bar.low, rel=0.02)
            assert bar.low in LOWER_NS[1::4]


def test_bars_are_of_ascii_where_the_output_is() -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(width=80, file=output, force_terminal=False, _environ={})
    console.print(HistogramsView(snapshot({series(): Histogram.of(5)})))
    output.seek(0)
    assert "#" * 50 in output.read()


def _same(text: str, _row: None) -> str:
    return text


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30), st.integers(0, 5), st.text(max_size=40)), min_size=1),
    st.integers(1, 200),
)
def test_a_layout_fits_whenever_columns_may_give_way(columns: list[tuple[int, int, int, str]], width: int) -> None:
    made = [
        Column(f"C{i}", partial(_same, text), least, least + more, drop=drop)
        for i, (least, more, drop, text) in enumerate(columns)
    ]
    layout = fit(made, width, [None])
    total = sum(layout.widths) + 2 * (len(layout.widths) - 1)
    if any(column.drop == 0 for column in layout.columns) and len(layout.columns) > 1 and total > width:
        assert all(column.drop == 0 for column in layout.columns)
    else:
        assert total <= width
    for column, used in zip(layout.columns, layout.widths, strict=True):
        assert used <= column.most


def test_a_column_of_numbers_does_not_move_with_its_content() -> None:
    columns = [number("N", str, 6)]
    assert fit(columns, 80, [1]).widths == fit(columns, 80, [99999]).widths == (6,)
