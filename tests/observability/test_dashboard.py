"""The rules of Grafana's dashboard-linter, and that every query means something, in two clusters, too."""

from __future__ import annotations

import mmap
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.generate import DASHBOARDS as MADE
from dashboards.generate import written

from .exporter import exporter
from .panels import DASHBOARDS, NAMES, ROOT, Query, dashboard, panels, queries
from .prometheus import Prometheus, eventually

PANELS = [(name, panel) for name in NAMES for panel in panels(name)]
QUERIES = [*queries(), *queries(tracepoints=True)]
#: Units by Grafana's names for them (packages/grafana-data/src/valueFormats).
UNITS = {"ops", "s", "short", "percentunit", "bytes", "binBps"}
METRIC = re.compile(r"\b((?:mkwrite|process)_[a-z_]+)\b")
RULES = {
    rule["record"]
    for group in yaml.safe_load((DASHBOARDS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
}
#: A scrape of the tracepoint backend on a host whose tasks met SIGBUS and were throttled.
SCRAPED = Path(__file__).parent / "data" / "tracepoint.prom"
HOST = "db-1:9788"


def title(case: Any) -> str:
    """The name of a test case."""
    return str(case["title"] if isinstance(case, dict) else case)


def variables(name: str) -> dict[str, dict[str, Any]]:
    """Those of a dashboard, by name."""
    return {variable["name"]: variable for variable in dashboard(name)["templating"]["list"]}


def test_the_files_are_what_the_generator_makes() -> None:
    assert [made.uid for made in MADE] == list(NAMES)
    for made in MADE:
        assert (DASHBOARDS / f"{made.uid}.json").read_text() == written(made), "run dashboards/generate.py"
    assert {path.stem for path in DASHBOARDS.glob("*.json")} == set(NAMES)


def test_the_generator_runs_as_a_program(tmp_path: Path) -> None:
    for source in DASHBOARDS.glob("*.py"):
        (tmp_path / "dashboards").mkdir(exist_ok=True)
        (tmp_path / "dashboards" / source.name).write_text(source.read_text())
    subprocess.run([sys.executable, str(tmp_path / "dashboards" / "generate.py")], check=True, cwd=tmp_path)
    assert {path.stem for path in (tmp_path / "dashboards").glob("*.json")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_can_be_edited_and_leads_to_the_others(name: str) -> None:
    made = dashboard(name)
    assert made["editable"] is True and made["uid"] == name and made["tags"] == ["mkwrite"]
    others, *links = made["links"]
    assert others["type"] == "dashboards" and others["tags"] == ["mkwrite"] and others["keepTime"]
    assert "${runbooks}" in [link["url"] for link in links]
    assert ("http://${instance}/" in [link["url"] for link in links]) == (name != "mkwrite-fleet")


@pytest.mark.parametrize("name", NAMES)
def test_the_selection_is_made_of_what_there_is(name: str) -> None:
    chosen = variables(name)
    source = chosen["datasource"]
    assert (source["type"], source["query"], source["label"]) == ("datasource", "prometheus", "Data source")
    assert list(chosen)[:3] == ["datasource", "cluster", "job"]
    # A series need not have a cluster, but it has a job.
    assert (chosen["cluster"]["allValue"], chosen["job"]["allValue"]) == (".*", ".+")
    for variable in chosen.values():
        if variable["type"] == "query":
            assert variable["label"] and variable["datasource"]["uid"] == "${datasource}"
            assert variable["refresh"] == 2  # on a change of the time range
            assert re.fullmatch(
                r"label_values\(mkwrite_\w+(\{.*\})?, " + variable["name"] + r"\)", variable["definition"]
            )
    assert ("instance" in chosen) == (name != "mkwrite-fleet")
    assert ("mountpoint" in chosen) == (name == "mkwrite-filesystem")


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=title)
def test_a_panel_explains_itself_and_leads_on(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"] and panel["description"].endswith(".")
    assert panel["datasource"]["uid"] == "${datasource}"
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    for link in panel.get("links", []):
        assert (ROOT / "docs" / "runbooks" / link["url"].removeprefix("${runbooks}/")).is_file()
    for link in panel["fieldConfig"]["defaults"]["links"]:
        if found := re.match(r"/d/([\w-]+)\?", link["url"]):
            chosen = re.findall(r"var-(\w+)=\$\{__(?:data\.fields|field\.labels)\.(\w+)\}", link["url"])
            assert found[1] in NAMES and all(ours == theirs for ours, theirs in chosen)
            # The labels that go along are in the series, by which it is summed.
            assert {ours for ours, _ in chosen} <= variables(found[1]).keys()
            for target in panel["targets"]:
                by = re.search(r"by \(([^)]*)\)", target["expr"])
                assert by is None or {ours for ours, _ in chosen} <= set(by[1].split(", ")), target["expr"]


@pytest.mark.parametrize("name", NAMES)
def test_panels_do_not_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard(name)["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and place["x"] + place["w"] <= 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard(name)["panels"]}) == len(dashboard(name)["panels"])


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.panel)
def test_a_query_obeys_the_selection(query: Query) -> None:
    # Grafana's own braces would hide where a selector ends.
    expression = re.sub(r"\$\{(\w+):regex\}", r"$\1", query.expression)
    selectors = re.findall(r"\{([^}]*)\}", expression)
    assert selectors
    for one in selectors:
        assert 'cluster=~"$cluster"' in one and 'job=~"$job"' in one
        assert query.dashboard == "mkwrite-fleet" or 'instance=~"$instance"' in one
        assert query.dashboard != "mkwrite-filesystem" or 'mountpoint=~"$mountpoint"' in one
    if query.dashboard == "mkwrite-fleet":
        # However many hosts: recorded series alone, a few of each host, of which the largest are shown, or a sum.
        asked = set(re.findall(r"[\w:]*mkwrite_[\w:]*", query.expression))
        assert asked <= RULES, asked - RULES
        assert re.match(r"(topk|bottomk)\(\$top, |(sum|count|max)\b|histogram_quantile\(", query.expression)
        return
    for counter, window in re.findall(r"(\w+_(?:total|bucket|count|sum))\{[^}]*\}(\[[^]]*\])?", expression):
        assert window in ("[$__rate_interval]", "[$__range]"), counter
        assert re.search(r"(rate|increase)\(" + counter, expression)


def test_every_metric_that_is_asked_for_is_documented() -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    for query in QUERIES:
        for name in METRIC.findall(query.expression) if query.dashboard != "mkwrite-fleet" else ():
            assert re.sub(r"_(bucket|sum|count)$", "", name) in documented, name


@contextmanager
def sparse_mapping(directory: Path) -> Iterator[None]:
    """A file that may ask for space."""
    with (directory / "sparse").open("w+b") as stream:
        stream.truncate(1 << 20)
        with mmap.mmap(stream.fileno(), 1 << 20):
            yield


@contextmanager
def scraped() -> Iterator[str]:
    """A host:port that answers with a scrape of the tracepoint backend."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(SCRAPED.read_bytes())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_query_returns_data_and_keeps_clusters_apart(tmp_path: Path) -> None:
    """Two clusters have a host of one name each; in each, another host has the tracepoint backend."""
    rules = []
    for name in ("rules.yml", "alerts.yml"):
        rules.append(tmp_path / name)
        rules[-1].write_text((DASHBOARDS / name).read_text().replace("interval: 30s", "interval: 1s"))
    clusters = ("east", "west")
    with (
        sparse_mapping(tmp_path),
        exporter("--risk") as east,
        exporter("--risk") as west,
        scraped() as old,
    ):
        targets = [
            (address, {"cluster": cluster, "instance": instance})
            for cluster, ours in zip(clusters, (east, west), strict=True)
            for address, instance in ((ours, HOST), (old, "old:9788"))
        ]
        with Prometheus(tmp_path, {"mkwrite": targets}, rules) as server:

            def empty() -> list[str]:
                found = []
                for cluster in clusters:
                    for query in queries():
                        asked = query.expanded("5s", cluster=cluster, instance=HOST)
                        found += [] if server.query(asked) else [f"{cluster}: {query.panel}"]
                    for query in queries(tracepoints=True):
                        asked = query.expanded("5s", cluster=cluster, instance="old:9788")
                        found += [] if server.query(asked) else [f"{cluster}: {query.panel}"]
                return found

            eventually(lambda: not empty(), "some panels stay empty")
            eventually(lambda: server.fired() >= {"MkwriteWriteRefused"}, "no alert")

            def mixed() -> list[str]:
                seen = {rule: {one["metric"].get("cluster") for one in server.query(rule)} for rule in RULES}
                return [rule for rule, found in seen.items() if found != set(clusters)]

            eventually(lambda: not mixed(), "rules are not of both clusters")
            # Of both, a fleet shows both; of a host of one cluster, that one alone.
            both = Query("", next(query.expression for query in queries() if "Hosts by failures" in query.panel))
            eventually(
                lambda: len(server.query(both.expanded())) == 2 * len(clusters), "hosts are mixed up, or missing"
            )
            for name in NAMES:
                for variable in variables(name).values():
                    if variable["type"] == "query":
                        selector = re.search(r"\((.*), \w+\)$", variable["definition"])
                        assert selector and server.query(Query("", selector[1]).expanded())
