"""Counters that never go backwards, in bounded room, whatever is mounted where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from samples import series, snapshot

from tracer.export.prometheus.label import Who
from tracer.export.prometheus.ledger import CallKind, Ledger, SeriesLabels
from tracer.model.calls import Outcome, Series
from tracer.model.histogram import Histogram
from tracer.model.options import By

ONE = Histogram.of(1000)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def ledger(places: int = 1000, who: Who | None = None, clock: Clock | None = None) -> Ledger:
    """An empty ledger."""
    return Ledger(who or Who(), places, clock or Clock())


def counted(book: Ledger) -> dict[str, int]:
    """Calls of everything that is shown, by mount point."""
    found: dict[str, int] = {}
    for source, kinds in book.calls():
        assert source.mountpoint not in found
        found[source.mountpoint] = sum(histogram.count for histogram in kinds.values())
    return found


def calls(**mounts: int) -> dict[Series, Histogram]:
    """So many calls on each mount, a device each."""
    return {
        replace(series(f"/{name}"), dev=int.from_bytes(name.encode(), "big")): Histogram.of(*[1000] * number)
        for name, number in mounts.items()
    }


def test_a_device_that_is_mounted_elsewhere_does_not_take_its_calls_along() -> None:
    book = ledger()
    book.book(snapshot({series("/old"): Histogram.of(*[1] * 7)}), {"/old"})
    book.book(snapshot({series("/new"): Histogram.of(*[1] * 9)}), {"/new"})
    assert counted(book) == {"/old": 7, "/new": 2}
    book.book(snapshot({series("/old"): Histogram.of(*[1] * 14)}), {"/old"})
    assert counted(book) == {"/old": 12, "/new": 2}


def test_a_device_that_is_seen_mounted_later_is_not_counted_again() -> None:
    book = ledger()
    nameless = replace(series(""), fstype="", source="")
    book.book(snapshot({nameless: Histogram.of(*[1] * 7)}), set())
    book.book(snapshot({replace(series("/new"), source="/dev/loop1"): Histogram.of(*[1] * 9)}), {"/new"})
    assert counted(book) == {"": 7, "/new": 2}
    # The number of a filesystem without a device is another server's next time.
    book.book(snapshot({replace(series("/other"), source="server:/b"): Histogram.of(*[1] * 10)}), {"/other"})
    assert counted(book) == {"": 7, "/new": 2, "/other": 1}


def test_a_thousand_filesystems_that_came_and_went_exhaust_nothing() -> None:
    book = ledger(places=10)
    total = 0
    for number in range(1000):
        total += number % 7 + 1
        # One loop device after the other: the kernel counts on under the same number.
        book.book(snapshot({series(f"/m{number}"): Histogram.of(*[1] * total)}), {f"/m{number}", "/"})
        assert counted(book)[f"/m{number}"] == number % 7 + 1
        assert len(counted(book)) <= 10
    assert book.dropped == 0


def test_a_source_that_made_room_goes_on_where_it_was() -> None:
    book = ledger(places=1)
    book.book(snapshot(calls(a=5)), {"/a"})
    book.book(snapshot(calls(a=5, b=3)), {"/b"})
    assert counted(book) == {"/b": 3}
    book.book(snapshot(calls(a=6, b=3)), {"/a"})
    assert counted(book) == {"/a": 6}


def test_who_is_mounted_keeps_its_place_until_it_is_silent_for_an_hour() -> None:
    clock = Clock()
    book = ledger(places=1, clock=clock)
    book.book(snapshot(calls(a=5)), {"/a", "/b"})
    clock.now = 3600
    book.book(snapshot(calls(a=5, b=3)), {"/a", "/b"})
    assert counted(book) == {"/a": 5, "other": 3}
    assert book.dropped == 1
    clock.now = 3601
    book.book(snapshot(calls(a=5, b=4)), {"/a", "/b"})
    assert counted(book) == {"/b": 1, "other": 3}
    assert book.dropped == 0


def test_the_busiest_come_first() -> None:
    book = ledger(places=2)
    book.book(snapshot(calls(a=1, b=9, c=5)), {"/a", "/b", "/c"})
    assert counted(book) == {"/b": 9, "/c": 5, "other": 1}


def test_what_is_remembered_is_bounded() -> None:
    book = ledger(places=3)
    for number in range(200):
        refused = replace(series(f"/m{number}", Outcome.SIGBUS), dev=number)
        book.book(snapshot({refused: ONE}), {f"/m{number}"})
    assert len(book._counts) <= 15


_STEP = st.tuples(
    st.sampled_from("abcdefgh"),  # the mount point
    st.integers(1, 4),  # the device
    st.sampled_from([Outcome.WRITABLE, Outcome.SIGBUS]),
    st.integers(1, 3),
    st.booleans(),  # whether the place is unmounted afterwards
)


@settings(deadline=None, max_examples=200)
@given(st.lists(_STEP, max_size=60), st.integers(7, 9))  # of 32 sources, so that none is forgotten
def test_nothing_goes_backwards_and_nothing_is_lost_through_any_churn(
    steps: list[tuple[str, int, Outcome, int, bool]], places: int
) -> None:
    clock = Clock()
    book = ledger(places, clock=clock)
    kernel: dict[tuple[int, Outcome], int] = {}
    at: dict[int, str] = {}
    highest: dict[object, int] = {}
    for name, device, outcome, number, gone in steps:
        clock.now += 1
        at[device] = f"/{name}"
        kernel[device, outcome] = kernel.get((device, outcome), 0) + number
        now = {
            replace(series(at[dev], kind), dev=dev): Histogram.of(*[1000] * count)
            for (dev, kind), count in kernel.items()
        }
        before = sum(highest.values())
        book.book(snapshot(now), set() if gone else set(at.values()))
        for key, count in _all(book):
            assert count >= highest.get(key, 0)
            highest[key] = count
        assert sum(highest.values()) - before == number
        assert len(list(book.calls())) <= places + 1
        assert sum(len(list(kinds)) for _, kinds in book.calls()) <= 2 * (places + 1)


def _all(book: Ledger) -> Iterator[tuple[tuple[SeriesLabels, CallKind], int]]:
    for source, kinds in book.calls():
        for kind, histogram in kinds.items():
            yield (source, kind), histogram.count


def test_who_is_not_among_the_busiest_is_other() -> None:
    book = ledger(who=Who(By.PROCESS, top=2))
    busy = {replace(series(), who=f"p[{n}]"): Histogram.of(*[1] * n) for n in (1, 5, 9)}
    book.book(snapshot(busy), {"/srv"})
    assert {source.who: sum(h.count for h in kinds.values()) for source, kinds in book.calls()} == {
        ("p[9]",): 9,
        ("p[5]",): 5,
        ("other",): 1,
    }


def test_what_is_gone_from_the_kernel_stays_in_the_books_and_comes_back_from_zero() -> None:
    one, two = (replace(series("/srv"), who=f"sh[{pid}]") for pid in (1, 2))
    seven, nine = Histogram.of(*[1000] * 7), Histogram.of(*[1000] * 9)
    book = ledger(who=Who())
    book.book(replace(snapshot({one: seven, two: nine}), gone={one: seven, two: seven}), {"/srv"})
    assert counted(book) == {"/srv": 16}
    book.book(snapshot({two: Histogram.of(*[1000] * 2)}), {"/srv"})
    assert counted(book) == {"/srv": 16}
    book.book(snapshot({one: ONE, two: Histogram.of(*[1000] * 5)}), {"/srv"})
    assert counted(book) == {"/srv": 20}
