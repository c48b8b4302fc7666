"""Failures by label values, in bounded room."""

from __future__ import annotations

from dataclasses import replace

from tracer.export.prometheus.failure_ledger import FailureKind, FailureLedger, Refused
from tracer.export.prometheus.label import Who
from tracer.export.prometheus.place_ledger import MountLabels, PlaceLedger
from tracer.model.failures import Class, FailureSeries
from tracer.model.options import By

FULL = FailureSeries("ext4", "/srv", 8 << 20 | 1, Class.REFUSED, "ENOSPC")
NO_SPACE = FailureKind(Class.REFUSED, "ENOSPC")


def counted(book: FailureLedger) -> dict[tuple[str, str], int]:
    """Counts by mount point and errno."""
    return {(refused.place.mountpoint, refused.kind.errno): number for refused, number in book.counts([])}


def test_failures_are_counted_by_place_class_and_errno() -> None:
    book = FailureLedger(Who(), 10)
    other = replace(FULL, dev=3)
    book.book({FULL: 2, other: 5, replace(FULL, errno="EDQUOT"): 1}, {"/srv"}, {})
    book.book({FULL: 3, other: 5, replace(FULL, errno="EDQUOT"): 1}, {"/srv"}, {})
    assert dict(book.counts([])) == {
        Refused(MountLabels("ext4", "/srv"), NO_SPACE): 8,
        Refused(MountLabels("ext4", "/srv"), FailureKind(Class.REFUSED, "EDQUOT")): 1,
    }


def test_what_a_place_may_come_to_is_there_before_it_comes() -> None:
    counts = dict(FailureLedger(Who(), 10).counts([MountLabels("xfs", "/x")]))
    assert counts[Refused(MountLabels("xfs", "/x"), NO_SPACE)] == 0
    assert counts[Refused(MountLabels("xfs", "/x"), FailureKind(Class.BEYOND_END, ""))] == 0
    assert counts[Refused(MountLabels("xfs", "/x"), FailureKind(Class.WRITEBACK, "ENOSPC"))] == 0
    # Nobody is woken for those.
    assert not any(refused.kind.kind is Class.WRITEBACK_UNMAPPED for refused in counts)
    assert set(counts.values()) == {0}


def test_a_device_that_is_mounted_elsewhere_does_not_take_its_failures_along() -> None:
    book = FailureLedger(Who(), 10)
    book.book({FULL: 7}, {"/srv"}, {})
    book.book({replace(FULL, mountpoint="/new"): 9}, {"/new"}, {})
    assert counted(book) == {("/srv", "ENOSPC"): 7, ("/new", "ENOSPC"): 2}


def test_beyond_the_bound_failures_are_counted_together_and_who_is_gone_makes_room() -> None:
    book = FailureLedger(Who(), 2)
    three = {replace(FULL, dev=n, mountpoint=f"/m{n}"): n for n in (1, 2, 3)}
    book.book(three, {"/m1", "/m2", "/m3"}, {})
    assert counted(book) == {("/m1", "ENOSPC"): 1, ("/m2", "ENOSPC"): 2, ("other", "ENOSPC"): 3}
    book.book({series: number + 1 for series, number in three.items()}, {"/m2", "/m3"}, {})
    # /m1 failed last before it went: what it adds now is its own, and /m3 takes its place.
    assert counted(book) == {("/m2", "ENOSPC"): 3, ("/m3", "ENOSPC"): 1, ("other", "ENOSPC"): 3}


def test_signals_without_a_filesystem_are_counted_too() -> None:
    book = FailureLedger(Who(), 10)
    book.book({FailureSeries("", "", 0, Class.SENT, ""): 1}, set(), {})
    assert dict(book.counts([])) == {Refused(MountLabels("", ""), FailureKind(Class.SENT, "")): 1}


def test_what_the_kernel_does_not_count_any_more_is_booked_once() -> None:
    book = FailureLedger(Who(), 10)
    series = replace(FULL, who="dd[7]")
    book.book({series: 7, FULL: 1}, {"/srv"}, {series: 5})
    book.book({series: 2, FULL: 1}, {"/srv"}, {series: 2})
    book.book({series: 3, FULL: 2}, {"/srv"}, {})  # another process of that number
    assert counted(book) == {("/srv", "ENOSPC"): 7 + 3 + 2}


def test_whom_it_happened_to_is_told_apart_as_far_as_there_is_room() -> None:
    book = FailureLedger(Who(By.PROCESS, 10_000), 100)
    for number in range(500):
        series = replace(FULL, who=f"dd[{number}]")
        book._who.note({series.who: 1}, number)
        book.book({series: 1}, {"/srv"}, {series: 1})
    counts = dict(book.counts([]))
    assert (len(counts), sum(counts.values())) == (101, 500)
    assert counts[Refused(MountLabels("other", "other", ("other",)), NO_SPACE)] == 400


def test_for_whom_nothing_was_counted_for_an_hour_makes_room() -> None:
    now = 0.0
    book: PlaceLedger[str] = PlaceLedger(2, ("other",), lambda: now)
    places = [MountLabels("ext4", "/srv", (f"c{number}",)) for number in range(4)]
    book.add({(places[0], "EIO"): 1, (places[1], "EIO"): 2}, {"/srv"})
    book.add({(places[2], "EIO"): 4}, {"/srv"})
    now = 3601.0
    book.add({(places[1], "EIO"): 8}, {"/srv"})
    book.add({(places[3], "EIO"): 16}, {"/srv"})
    found = {place.who: number for place, _, number in book.counts([], [])}
    assert found == {("other",): 4, ("c1",): 10, ("c3",): 16}


def test_what_failed_before_is_not_counted_anew_for_the_next_filesystem_of_a_number() -> None:
    book = FailureLedger(Who(), 10)
    old = FailureSeries("tmpfs", "/b", 45, Class.TMPFS_FULL, "ENOSPC")
    book.book({old: 5}, {"/b"}, {})
    new = FailureSeries("overlay", "/c", 45, Class.MEDIA, "EIO", "", 1)
    book.book({old: 5, new: 2}, {"/c"}, {old: 5})
    book.book({new: 3}, {"/c"}, {})
    assert counted(book) == {("/b", "ENOSPC"): 5, ("/c", "EIO"): 3}
