"""The rules of Grafana's dashboard-linter, and that every query means something."""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .exporter import exporter
from .panels import DASHBOARDS, ROOT, Query, dashboard, panels, queries
from .prometheus import Prometheus, eventually

PANELS = panels()
QUERIES = list(queries())
VARIABLES = {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
#: Units by Grafana's names for them (packages/grafana-data/src/valueFormats).
UNITS = {"ops", "s", "short", "percentunit", "bytes", "binBps"}
METRIC = re.compile(r"\b((?:mkwrite|process)_[a-z_]+)\b")


def title(panel: dict[str, Any]) -> str:
    """The name of a test case."""
    return str(panel["title"])


def test_it_is_ours_to_edit() -> None:
    assert dashboard()["editable"] is False
    assert dashboard()["uid"] == "mkwrite"


def test_the_datasource_is_a_choice() -> None:
    variable = VARIABLES["datasource"]
    assert (variable["type"], variable["query"], variable["label"]) == ("datasource", "prometheus", "Data source")


@pytest.mark.parametrize("name", ["job", "instance", "fstype", "mountpoint"])
def test_the_selection_is_made_of_what_there_is(name: str) -> None:
    variable = VARIABLES[name]
    assert variable["type"] == "query" and variable["label"]
    assert variable["datasource"]["uid"] == "${datasource}"
    assert variable["multi"] and variable["includeAll"] and variable["allValue"] in (".+", ".*")
    assert variable["refresh"] == 2  # on a change of the time range
    assert re.fullmatch(r"label_values\(mkwrite_\w+(\{.*\})?, " + name + r"\)", variable["definition"])


def test_job_and_instance_come_first() -> None:
    assert list(VARIABLES) == ["datasource", "job", "instance", "fstype", "mountpoint"]
    assert VARIABLES["job"]["allValue"] == VARIABLES["instance"]["allValue"] == ".+"


@pytest.mark.parametrize("panel", PANELS, ids=title)
def test_a_panel_explains_itself(panel: dict[str, Any]) -> None:
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.panel)
def test_a_query_obeys_the_selection(query: Query) -> None:
    for name, selectors in re.findall(r"((?:mkwrite|process)_\w+)\{([^}]*)\}", query.expression):
        assert 'job=~"$job"' in selectors and 'instance=~"$instance"' in selectors, name
    assert len(METRIC.findall(query.expression)) == query.expression.count("{")
    for counter, window in re.findall(r"(\w+_(?:total|bucket|count|sum))\{[^}]*\}(\[[^]]*\])?", query.expression):
        assert window in ("[$__rate_interval]", "[$__range]"), counter
        assert re.search(r"(rate|increase)\(" + counter, query.expression)


def test_every_metric_that_is_asked_for_is_documented() -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    asked = {name for query in QUERIES for name in METRIC.findall(query.expression)}
    for name in asked:
        assert re.sub(r"_(bucket|sum|count)$", "", name) in documented, name


@contextmanager
def sparse_mapping(directory: Path) -> Iterator[None]:
    """A file that may ask for space."""
    with (directory / "sparse").open("w+b") as stream:
        stream.truncate(1 << 20)
        with mmap.mmap(stream.fileno(), 1 << 20):
            yield


def test_every_query_returns_data(tmp_path: Path) -> None:
    rules = (DASHBOARDS / "rules.yml", DASHBOARDS / "alerts.yml")
    with (
        sparse_mapping(tmp_path),
        exporter("--risk") as address,
        Prometheus(tmp_path, {"mkwrite": address}, rules) as server,
    ):

        def empty() -> list[str]:
            return [query.panel for query in QUERIES if not server.query(query.expanded("5s"))]

        eventually(lambda: not empty(), "some panels stay empty")
        eventually(lambda: server.fired() >= {"MkwriteWriteRefused"}, "no alert")
        for variable in VARIABLES.values():
            if variable["type"] == "query":
                selector = re.search(r"\((.*), \w+\)$", variable["definition"])
                assert selector and server.query(Query("", selector[1]).expanded())
