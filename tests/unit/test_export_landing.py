"""The landing page as a document: well formed, self-contained, and nothing in it but what we wrote."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from failure_samples import REFUSED
from hypothesis import given, settings
from hypothesis import strategies as st
from look_back import NASTY, hour, nothing
from samples import event, series, snapshot

from tracer.export.http.history import MINUTES, History, View
from tracer.export.http.landing import page
from tracer.export.http.style import CONTENT_SECURITY_POLICY
from tracer.model.calls import Outcome
from tracer.model.histogram import Histogram
from tracer.model.hooks import Loss
from tracer.model.losses import MEANINGS

_VOID = {"meta"}
HARMLESS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "nav",
        "main",
        "section",
        "h1",
        "h2",
        "p",
        "a",
        "span",
    ),
    *("div", "table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "text"),
}


class Document(HTMLParser):
    """Elements and text of a page; fails on one that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.tables: dict[str, list[list[str]]] = {}
        self._open: list[str] = []
        self._table: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self._table = self.tables.setdefault(dict(attrs)["id"] or "", [])
        elif tag == "tr":
            self._table.append([])
        elif tag in ("td", "th"):
            self._table[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("td", "th"):
            self._table[-1][-1] += data
        self.text += data

    def tags(self) -> set[str]:
        """Names of all elements."""
        return {tag for tag, _ in self.elements}


def test_nothing_is_fetched_and_nothing_runs() -> None:
    document = Document(page(hour(), "1.2<3"))
    assert document.tags() <= HARMLESS
    for _, attributes in document.elements:
        assert not any(name.startswith("on") or name in ("style", "src", "xlink:href") for name in attributes)
        assert attributes.get("href", "/").startswith("/")  # type: ignore[union-attr]
    assert "url(" not in page(hour(), "") and "@import" not in page(hour(), "")
    assert "1.2<3" in document.text
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY and "unsafe" not in CONTENT_SECURITY_POLICY


def test_the_tables_hold_what_there_is() -> None:
    view = hour()
    document = Document(page(view, "1"))
    titles, *rows = document.tables["calls"]
    assert len(rows) == 8
    busiest = dict(zip(titles, rows[0], strict=True))
    assert (busiest["Filesystem"], busiest["Mount point"], busiest["Calls/s"], busiest["Calls"]) == (
        "ext4",
        "/",
        "70",
        "700",
    )
    (failed,) = [row for row in rows if row[-1]]
    assert failed[1] == "/srv/data" and failed[-1] == "2"
    assert [row[7] for row in document.tables["failures"][1:]] == ["/srv/data", f"/srv/data/{NASTY}", "inode 131"]
    assert [row[2:5] for row in document.tables["failures"][1:]] == [
        ["refused", "ENOSPC", "ext4_da_reserve_space"],
        ["refused", "EDQUOT", "ext4_da_reserve_space"],
        ["refused", "ENOMEM", "inferred"],
    ]
    titles, *rows = document.tables["waits"]
    journal = dict(zip(titles, rows[0], strict=True))
    assert (journal["Mount point"], journal["Reason"], journal["Waits"]) == ("/", "journal", "31")
    assert (journal["Waited/s"], journal["Waited"], journal["Max ever"]) == ("460us", "4.6ms", "410us")
    assert [row[3] for row in rows] == ["journal", "lock"]
    assert "2 calls in flight, the oldest for 12.3s" in document.text
    assert "2 of 3 hooks are attached." in document.text
    assert document.tables["hooks"][1:] == [["dirty", "fault_dirty_shared_page", "fentry", NASTY]]
    meaning = MEANINGS[Loss.MISSED_PROBE]
    assert document.tables["losses"][1:] == [["missed_probe", "3", meaning.missed, meaning.remedy]]
    assert [row[0] for row in document.tables["wp-faults"][1:]] == [outcome.value for outcome in view.total.wp_faults]
    assert "\x1b" not in document.text


def test_a_tracer_that_is_down_says_so() -> None:
    document = Document(page(nothing(), "1"))
    assert "cannot be read" in document.text
    assert "calls" not in document.tables


def test_every_minute_and_latency_of_the_heat_map_is_told() -> None:
    cells = re.findall(r"<title>(\S+) calls of (\S+) to (\S+), (\d+) min ago</title>", page(hour(), "1"))
    assert {int(ago) for *_, ago in cells} == set(range(MINUTES))
    slow = {int(ago) for _, low, _, ago in cells if low.endswith("ms") and float(low[:-2]) > 8}
    assert slow <= set(range(20, 30)) and slow


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=()), max_size=30))
def test_whatever_things_are_called_the_document_stays_ours(name: str) -> None:
    calls = {series(f"/{name}", Outcome.SIGBUS): Histogram.of(1)}
    latencies = (Histogram(),) * (MINUTES - 1) + (Histogram.of(1),)
    view = View(True, snapshot(calls), snapshot(calls), latencies, (replace(REFUSED, file=name, comm=name),))
    assert Document(page(view, name)).tags() <= HARMLESS


@pytest.mark.parametrize("latencies", [[], [0], [63, 64], [1 << 62], [0, 1 << 40]])
def test_a_heat_map_of_anything_is_drawn_in_its_frame(latencies: list[int]) -> None:
    empty = snapshot({})
    view = View(True, empty, empty, (Histogram(),) * (MINUTES - 1) + (Histogram.of(*latencies),), ())
    document = Document(page(view, "1"))
    (frame,) = [a for tag, a in document.elements if tag == "svg"] or [{}]
    for tag, attributes in document.elements:
        if tag == "rect":
            assert int(attributes["y"] or -1) >= 0
            assert int(attributes["y"] or 0) + int(attributes["height"] or 0) <= int(frame["height"] or 0)


def test_history_keeps_an_hour_by_minutes() -> None:
    minute = 60 * 10**9
    history = History(snapshot({}, elapsed_ns=0))
    for number in range(1, 131):
        history.add(snapshot({series(): Histogram.of(*[1000] * number)}, elapsed_ns=number * minute // 2))
    view = history.view()
    assert [histogram.count for histogram in view.minutes] == [2] * (MINUTES - 1) + [1]
    assert view.total.calls[series()].count == 130
    assert view.recent.calls[series()].count == 1 and view.recent.elapsed_ns == minute // 2
    history.add(snapshot({series(): Histogram.of(*[1000] * 200)}, elapsed_ns=500 * minute))
    assert [histogram.count for histogram in history.view().minutes] == [0] * (MINUTES - 1) + [70]


def test_history_tells_when_a_reading_failed_and_keeps_what_it_knew() -> None:
    history = History(snapshot({}))
    history.add(None)
    assert not history.up and not history.view().up
    history.add(snapshot({}, elapsed_ns=2 * 10**9))
    assert history.view().up


def test_history_keeps_the_newest_failures_only() -> None:
    history = History(snapshot({}))
    history.note([event(outcome=Outcome.WRITABLE)])
    history.note([replace(REFUSED, comm=str(number)) for number in range(70)])
    comms = [failure.comm for failure in history.view().failures]
    assert comms == [str(number) for number in range(69, 19, -1)]
