"""The tables of calls and faults: right numbers, and columns that give way."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import series, snapshot
from shown import render

from tracer.model.calls import FaultPath, Initiator, Outcome, WpOutcome
from tracer.model.histogram import Histogram
from tracer.model.snapshot import Snapshot
from tracer.ui.calls import SORTS, call_rows, calls_table
from tracer.ui.count import CountView
from tracer.ui.table import Column, fit, number
from tracer.ui.top import TopView
from tracer.ui.wp import wp_table


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
            series(path=FaultPath.WRITE_PROTECT): Histogram.of(*[50_000_000] * 3),
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
        (60, "MOUNT PATH CALLS/S P50 P99 FAILED"),
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


@pytest.mark.parametrize(
    ("width", "screen"),
    [
        (
            40,
            """\
MOUNT           CALLS/S     P99   FAILED
/srv                3.5   940ns        2
…f/a/database       2.5   962us        0
/srv                1.5  50.0ms        0
""",
        ),
        (
            80,
            """\
MOUNT          FSTYPE  PATH             CALLS/S     P50     P99     MAX   FAILED
/srv           ext4    first_write          3.5   940ns   940ns   1.0us        2
…f/a/database  ext4    first_write          2.5   962us   962us   1.0ms        0
/srv           ext4    write_protect        1.5  50.0ms  50.0ms  50.0ms        0
""",
        ),
        (
            200,
            """\
DEVICE  MOUNT                                 FSTYPE  HANDLER                   PATH             CALLS/S     P50     P99     MAX   FAILED
8:1     /srv                                  ext4    ext4_page_mkwrite         first_write          3.5   940ns   940ns   1.0us        2
8:1     /very/long/mount/point/of/a/database  ext4    ext4_page_mkwrite         first_write          2.5   962us   962us   1.0ms        0
8:1     /srv                                  ext4    ext4_page_mkwrite         write_protect        1.5  50.0ms  50.0ms  50.0ms        0
""",  # noqa: E501
        ),
    ],
)
def test_what_is_read_first_is_whole_at_every_width(busy: Snapshot, width: int, screen: str) -> None:
    """No path and no handler is ever cut: it would say nothing."""
    assert "\n".join(line.rstrip() for line in render(calls_table(call_rows(busy)), width)) == screen.rstrip()


@pytest.mark.parametrize(("only", "number"), [("", 3), ("/srv", 2), ("ext4_page", 3), ("write_protect", 1), ("xfs", 0)])
def test_top_shows_the_rows_that_have_what_was_typed(busy: Snapshot, only: str, number: int) -> None:
    lines = render(TopView(busy, busy, only=only), 120)
    assert sum("ext4_page_mkwrite" in line for line in lines) == number
    assert any("no row has 'xfs'" in line for line in lines) == (number == 0)


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
