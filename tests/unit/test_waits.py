"""From counts to a breakdown, and what is shown of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console
from samples import event, series, snapshot

from tracer.export.json.folded import folded_lines
from tracer.export.json.records import breakdown_dict, seen_dict
from tracer.kernel.symbols import Symbols
from tracer.latency.breakdown import Breakdown, Part, breakdowns, parts_of
from tracer.latency.stacks import Seen, Slow, WaitStack
from tracer.model.calls import Outcome
from tracer.model.histogram import Histogram
from tracer.model.snapshot import Snapshot
from tracer.model.waits import Wait, WaitSeries, WaitTime
from tracer.probes.wait_functions import available, names
from tracer.ui.waits import WaitsView

DEV = 8 << 20 | 1
FUNCTIONS = ("wait\n", "do_page_mkwrite")
WHERE = WaitStack("ext4", "/srv", DEV, "ext4_page_mkwrite", "freeze", FUNCTIONS)
ON_CPU = WaitStack("ext4", "", DEV + 1, "ext4_page_mkwrite", "cpu", ())


def waits(times: dict[Wait, WaitTime]) -> dict[WaitSeries, WaitTime]:
    return {WaitSeries("ext4", "/srv", DEV, "ext4_page_mkwrite", reason): time for reason, time in times.items()}


def counted() -> Snapshot:
    calls = {series(): Histogram.of(1000, 9000), series(outcome=Outcome.SIGBUS): Histogram.of(5000)}
    times = {Wait.JOURNAL: WaitTime(1, 8000, 8000), Wait.THROTTLE: WaitTime(2, 5000, 4000), Wait.OTHER: WaitTime()}
    return replace(snapshot(calls), waits=waits(times))


def test_the_parts_sum_up_to_the_time_in_calls_and_throttled() -> None:
    (found,) = breakdowns(counted())
    assert found == Breakdown(
        "ext4", "/srv", DEV, "ext4_page_mkwrite", 3, 20_000,
        (Part("journal", 8000, 1, 8000), Part("cpu", 7000), Part("throttle", 5000, 2, 4000)),
    )  # fmt: skip
    assert sum(part.ns for part in found.parts) == found.ns


def test_a_wait_of_a_call_that_is_not_counted_yet_is_shown() -> None:
    (found,) = breakdowns(replace(counted(), calls={}))
    assert (found.calls, found.ns) == (0, 13_000)
    assert found.parts[-1] == Part("cpu", 0)


def test_an_interval_has_what_came_in_it() -> None:
    before = counted()
    after = replace(before, waits=waits({Wait.JOURNAL: WaitTime(3, 11_000, 8000), Wait.FREEZE: WaitTime(1, 7, 7)}))
    assert after.since(before).waits == waits({Wait.JOURNAL: WaitTime(2, 3000, 8000), Wait.FREEZE: WaitTime(1, 7, 7)})


def test_a_calls_parts_begin_with_the_largest() -> None:
    found = parts_of(replace(event(), waits={Wait.LOCK: 300_000, Wait.JOURNAL: 12_000_000}))
    assert list(found.items()) == [("journal", 12_000_000), ("lock", 300_000), ("cpu", 0)]
    throttled = replace(event(), waits={Wait.LOCK: 300_000}, throttled_ns=50_000_000)
    assert list(parts_of(throttled).items()) == [("throttle", 50_000_000), ("cpu", 12_000_000), ("lock", 300_000)]


def test_the_view_fits_80_columns_and_escapes() -> None:
    console = Console(width=80, record=True, file=None, force_terminal=False, color_system=None)
    slow = replace(event(comm="a\x1b[31m"), waits={Wait.JOURNAL: 12_000_000})
    with console.capture() as capture:
        console.print(
            WaitsView(counted(), [Slow(slow, FUNCTIONS)], [Seen(WHERE, 3, 60_000_000), Seen(ON_CPU, 1, 20_000_000)])
        )
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in capture.get()
    assert lines[0] == "/srv ext4 8:1 ext4_page_mkwrite"
    assert lines[1] == "3 calls, 20.0us in all, 6.7us a call"
    assert lines[3].split()[:6] == ["journal", "8.0us", "2.7us", "40.0%", "1", "8.0us"]
    at = next(i for i, line in enumerate(lines) if "journal 12.0ms, cpu 300us" in line)
    assert [line.strip() for line in lines[at + 1 : at + 3]] == ["wait\\x0a", "do_page_mkwrite"]
    at = lines.index("where calls were")
    assert lines[at + 1 :] == [
        "60.0ms  75.0%  freeze  /srv ext4 ext4_page_mkwrite",
        "    wait\\x0a",
        "    do_page_mkwrite",
        "20.0ms  25.0%  cpu  (8:2) ext4 ext4_page_mkwrite",
        "",
    ]


def test_folded_stacks_begin_outermost_and_end_with_reason_and_microseconds() -> None:
    odd = replace(WHERE, mountpoint="/a b;c\n")
    assert list(folded_lines([Seen(odd, 3, 60_001_999), Seen(ON_CPU, 1, 20_000_000)])) == [
        "/a_b,c\\x0a;do_page_mkwrite;wait\\x0a;freeze 60001",
        "8:2;ext4_page_mkwrite;cpu 20000",
    ]


def test_json_has_stacks() -> None:
    assert seen_dict(Seen(WHERE, 3, 60_000_000)) == {
        "fstype": "ext4",
        "mountpoint": "/srv",
        "device": "8:1",
        "handler": "ext4_page_mkwrite",
        "reason": "freeze",
        "looks": 3,
        "total_ns": 60_000_000,
        "stack": ["wait\n", "do_page_mkwrite"],
    }


def test_json_has_every_part() -> None:
    (found,) = breakdowns(counted())
    record = breakdown_dict(found)
    assert record["device"] == "8:1"
    assert record["parts"] == [
        {"part": "journal", "total_ns": 8000, "calls": 1, "max_ns": 8000},
        {"part": "cpu", "total_ns": 7000, "calls": 0, "max_ns": 0},
        {"part": "throttle", "total_ns": 5000, "calls": 2, "max_ns": 4000},
    ]


def test_no_function_stands_for_two_reasons() -> None:
    assert len(set(names())) == len(names())


def test_functions_are_those_that_the_kernel_has(tmp_path: Path) -> None:
    (tmp_path / "modules").write_text("")
    (tmp_path / "kallsyms").write_text(
        "ffffffff81000000 t percpu_rwsem_wait\nffffffff81000100 T wait_on_page_writeback\n"
        "ffffffff81000200 T folio_wait_writeback\nffffffffc0000000 t __reserve_bytes\t[btrfs]\n"
    )
    found = {(reason, symbol.name, symbol.module) for reason, symbol in available(Symbols(names(), proc=tmp_path))}
    assert found == {
        (Wait.FREEZE, "percpu_rwsem_wait", ""),
        (Wait.WRITEBACK, "folio_wait_writeback", ""),
        (Wait.SPACE, "__reserve_bytes", "btrfs"),
    }
