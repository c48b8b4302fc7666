"""The landing page as a document: well formed, self-contained, and nothing in it but what we wrote."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
from failure_samples import REFUSED
from hypothesis import given, settings
from hypothesis import strategies as st
from look_back import NASTY, explained, hour, nothing
from samples import series, snapshot

from tracer.export.http.api import answer
from tracer.export.http.groups import Group
from tracer.export.http.history import MINUTES, History, Past
from tracer.export.http.landing import page
from tracer.export.http.questions import Question
from tracer.export.http.style import CONTENT_SECURITY_POLICY
from tracer.export.http.view import View
from tracer.model.calls import Outcome
from tracer.model.failures import Class, FailureSeries
from tracer.model.histogram import Histogram
from tracer.model.hooks import Loss
from tracer.model.losses import MEANINGS
from tracer.model.snapshot import Tracepoints
from tracer.ui.sigbus import words

_VOID = {"meta"}
_API = (Question.FAILURES, Question.STUCK, Question.RISK, Question.CALLS)
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
    *("details", "summary", "pre", "code"),
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
    document = Document(page(hour(), "1.2<3", words))
    assert document.tags() <= HARMLESS
    for _, attributes in document.elements:
        assert not any(name.startswith("on") or name in ("style", "src", "xlink:href") for name in attributes)
        assert attributes.get("href", "/").startswith(("/", "#"))  # type: ignore[union-attr]
    assert "url(" not in page(hour(), "", words) and "@import" not in page(hour(), "", words)
    assert "1.2<3" in document.text
    assert "default-src 'none'" in CONTENT_SECURITY_POLICY and "unsafe" not in CONTENT_SECURITY_POLICY


def test_the_tables_hold_what_there_is() -> None:
    view = hour()
    document = Document(page(view, "1", words))
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
    assert [row[0] for row in document.tables["wp-faults"][1:]] == [
        outcome.value for outcome in view.past.total.wp_faults
    ]
    assert "\x1b" not in document.text


def test_a_tracer_that_is_down_says_so() -> None:
    document = Document(page(nothing(), "1", words))
    assert "cannot be read" in document.text
    assert "calls" not in document.tables


def test_what_is_wrong_comes_first_and_opens() -> None:
    text = page(hour(), "1", words)
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings[:3] == ["Failures", "Stuck now", "At risk"] and headings[-1] == "The tracer itself"
    verdict = re.sub("<.*?>", "", re.findall('<p class="verdict.*?</p>', text)[0])
    assert verdict == "3 kinds of failures, 1 call stuck, 2 things at risk"
    cards = [unescape(re.sub("<.*?>", " ", card)) for card in re.findall("<details.*?</details>", text, re.DOTALL)]
    assert len(cards) == 6
    database, hostile, nameless, stuck, full, cut = cards
    for said in ("refused ENOSPC", "42 times", "/srv/data", "postgres[4242] and 1 more", "SIGBUS 2023-11-14",
                 "42 failures in all", "postgres[8], postgres[7]",
                 "mkwrite sigbus --from /r --since '2023-11-14 "):  # fmt: skip
        assert said in database, said
    assert f"/srv/data/{NASTY}" in hostile and r"\x1b[31m" in hostile and "1 times" not in hostile
    assert "inode 131" in nameless
    assert "42.0s" in stuck and "frozen by fsfreeze[1]" in stuck and "percpu_rwsem_wait" in stuck
    assert "short" in full and "refused in" in full and "/srv/wal" in full and "512 MiB" in full
    assert "beyond its end" in cut and "2 pages" in cut
    assert "Calls that began before." in text and "Processes of others." in text


def test_what_is_not_wrong_is_said_and_what_was_not_looked_at_is_no_good_news() -> None:
    calm = replace(hour(), groups=(), stuck=(), risk=None, risk_unseen=("Start it with --risk.",))
    text = page(calm, "1", words)
    assert "Nothing wrong was seen." in text and "None was seen in 61.7m." in text
    assert "not seen: Start it with --risk." in text and "with room" not in text
    blind = replace(calm.past.total, tracepoints=Tracepoints(0, {}, {}))
    text = page(replace(calm, past=replace(calm.past, total=blind)), "1", words)
    assert "No call" not in text and "<svg" not in text and "not seen: Calls, what they wait for" in text


def test_what_was_only_counted_is_told() -> None:
    full = FailureSeries("ext4", "/srv", 1, Class.REFUSED, "ENOSPC")
    view = hour()
    counted = replace(view, past=replace(view.past, total=replace(view.past.total, failures={full: 45})))
    assert "1 failure more only counted." in page(counted, "1", words)
    assert json.loads(answer(Question.FAILURES, counted))["untold"] == 1


def test_json_tells_what_the_page_does() -> None:
    found = {question: json.loads(answer(question, hour())) for question in _API}
    database, hostile, nameless = found[Question.FAILURES]["failures"]
    assert (database["total"], database["repeated"]["count"], database["told"]) == (42, 41, None)
    assert database["first"]["host"]["container"] == "0123456789ab" and database["first"]["remedy"]
    assert hostile["first"]["file"] == f"/srv/data/{NASTY}" and hostile["repeated"] is None
    assert nameless["first"]["errno"] == "ENOMEM"
    ((one,), unseen) = found[Question.STUCK]["stuck"], found[Question.STUCK]["unseen"]
    assert (one["reason"], one["freeze"]["by"]["comm"], unseen) == ("freeze", "fsfreeze", ["Calls that began before."])
    (limit,) = found[Question.RISK]["limits"]
    assert (limit["state"], limit["refused_in_ns"]) == ("short", 256 * 10**9)
    assert len(found[Question.CALLS]["total"]["calls"]) == 9 and found[Question.CALLS]["waits"]
    assert json.loads(answer(Question.RISK, nothing()))["unseen"] == ["Not looked at."]
    assert all(one["time_ns"] for one in found.values())


def test_every_minute_and_latency_of_the_heat_map_is_told() -> None:
    cells = re.findall(r"<title>(\S+) calls of (\S+) to (\S+), (\d+) min ago</title>", page(hour(), "1", words))
    assert {int(ago) for *_, ago in cells} == set(range(MINUTES))
    slow = {int(ago) for _, low, _, ago in cells if low.endswith("ms") and float(low[:-2]) > 8}
    assert slow <= set(range(20, 30)) and slow


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.binary(max_size=30).map(os.fsdecode))
def test_whatever_things_are_called_the_document_stays_ours(name: str) -> None:
    calls = {series(f"/{name}", Outcome.SIGBUS): Histogram.of(1)}
    failure = replace(REFUSED, file=name, comm=name, command=(name,), mountpoint=name)
    latencies = (Histogram(),) * (MINUTES - 1) + (Histogram.of(1),)
    view = View(Past(True, snapshot(calls), snapshot(calls), latencies), (Group(explained(failure)),))
    assert Document(page(view, name, words)).tags() <= HARMLESS
    for question in _API:
        assert json.loads(answer(question, view))


@pytest.mark.parametrize("latencies", [[], [0], [63, 64], [1 << 62], [0, 1 << 40]])
def test_a_heat_map_of_anything_is_drawn_in_its_frame(latencies: list[int]) -> None:
    empty = snapshot({})
    view = View(Past(True, empty, empty, (Histogram(),) * (MINUTES - 1) + (Histogram.of(*latencies),)))
    document = Document(page(view, "1", words))
    frames = [a["viewbox"] or "" for tag, a in document.elements if tag == "svg" and "viewbox" in a]
    for tag, attributes in document.elements:
        if tag == "rect":
            _, above, width, height = map(float, frames[0].split())
            assert above <= float(attributes["y"] or -1) <= above + height - float(attributes["height"] or 0)
            assert 0 <= float(attributes["x"] or -1) <= width - float(attributes["width"] or 0)


def test_history_keeps_an_hour_by_minutes() -> None:
    minute = 60 * 10**9
    history = History(snapshot({}, elapsed_ns=0))
    for number in range(1, 131):
        history.add(snapshot({series(): Histogram.of(*[1000] * number)}, elapsed_ns=number * minute // 2))
    view = history.past()
    assert [histogram.count for histogram in view.minutes] == [2] * (MINUTES - 1) + [1]
    assert view.total.calls[series()].count == 130
    assert view.recent.calls[series()].count == 1 and view.recent.elapsed_ns == minute // 2
    history.add(snapshot({series(): Histogram.of(*[1000] * 200)}, elapsed_ns=500 * minute))
    assert [histogram.count for histogram in history.past().minutes] == [0] * (MINUTES - 1) + [70]


def test_history_tells_when_a_reading_failed_and_keeps_what_it_knew() -> None:
    history = History(snapshot({}))
    history.add(None)
    assert not history.up and not history.past().up
    history.add(snapshot({}, elapsed_ns=2 * 10**9))
    assert history.past().up
