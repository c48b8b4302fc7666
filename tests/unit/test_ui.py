"""All views in every width, whatever the names; and what is said below each."""

from __future__ import annotations

from dataclasses import replace

import pytest
from failure_samples import REFUSED
from samples import event, series, snapshot
from shown import ESCAPED, HOSTILE, render

from tracer.model.histogram import Histogram
from tracer.model.hooks import Backend, Hook, Loss
from tracer.ui.count import CountView
from tracer.ui.hist import HistogramsView
from tracer.ui.labels import NO_CALLS
from tracer.ui.status import status
from tracer.ui.top import TopView
from tracer.ui.trace import TraceLines

WIDTHS = (20, 40, 60, 80, 120, 200)


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
    assert NO_CALLS in render(TopView(snapshot({}), snapshot({})))


def test_losses_are_shown_even_when_there_are_none_and_by_kind_and_in_red_when_there_are() -> None:
    assert render(next(status(snapshot({}))))[0].startswith("lost: 0  ")
    lost = snapshot({}, lost=7)
    lost = replace(lost, lost={**lost.lost, Loss.MISSED_PROBE: 2})
    assert render(next(status(lost)))[0].startswith(
        "lost: 2 (missed_probe 2), counted but not told one by one: 7 (events_full)  "
    )
    assert "\x1b[1;31mlost: 2" in render(next(status(lost)), colours=True)[0]


def test_losses_shown_by_top_are_those_since_the_start() -> None:
    lines = render(TopView(counts=snapshot({}), total=snapshot({}, lost=7)))
    assert any(line.startswith("lost: 0, counted but not told one by one: 7 ") for line in lines)


def test_hooks_that_are_not_attached_are_named_with_the_reason() -> None:
    hooks = (
        Hook("do_page_mkwrite", "do_page_mkwrite", Backend.KPROBE, attached=True),
        Hook("do_wp_page", "do_wp_page", Backend.KPROBE, attached=False, detail="inlined"),
    )
    (line,) = render(next(status(replace(snapshot({}), hooks=hooks))))
    assert line.endswith("backend: kprobe, hooks: 1 of 2; not attached: do_wp_page (inlined)")
