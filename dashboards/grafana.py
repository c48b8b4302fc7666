"""Grafana's dashboard model, as far as these dashboards use it (schema 39, Grafana 10 and newer)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
#: Where the dashboards link to; the labels of a series go with it. A series without cluster has none there.
_TARGETS: Final = {"host": ("cluster", "job", "instance"), "filesystem": ("cluster", "job", "instance", "mountpoint")}


@dataclass(frozen=True)
class Panel:
    """``queries`` are expressions and legends; ``to`` is the dashboard that a series links to.

    ``stat``, ``timeseries``, ``heatmap`` or ``table``; a table shows one moment, its value under ``value``.
    """

    kind: str
    title: str
    description: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    width: int = 12
    height: int = 8
    to: str = ""
    runbook: str = ""
    value: str = "Value"


@dataclass(frozen=True)
class Row:
    """A title, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


@dataclass(frozen=True)
class Dashboard:
    """``variables`` are Grafana's objects; ``links`` titles and addresses beside those to the other dashboards."""

    uid: str
    title: str
    description: str
    variables: tuple[dict[str, Any], ...]
    rows: tuple[Row, ...]
    annotations: tuple[tuple[str, str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = field(default=())

    def json(self) -> dict[str, Any]:
        """Return the dashboard as Grafana reads it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["mkwrite"],
            "editable": True,
            "graphTooltip": 1,
            "schemaVersion": 39,
            "version": 1,
            "time": {"from": "now-1h", "to": "now"},
            "refresh": "30s",
            "timezone": "browser",
            "templating": {"list": [_DATASOURCE, *self.variables, _RUNBOOKS]},
            "annotations": {"list": [_annotation(*one) for one in self.annotations]},
            "links": [
                {"type": "dashboards", "title": "mkwrite", "tags": ["mkwrite"], "asDropdown": True, "keepTime": True,
                 "includeVars": True, "targetBlank": False},
                *({"type": "link", "title": title, "url": url, "targetBlank": True} for title, url in self.links),
            ],
            "panels": list(_placed(self.rows)),
        }  # fmt: skip


_DATASOURCE: Final = {
    "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0,
    "includeAll": False, "multi": False, "options": [], "refresh": 1, "regex": "", "skipUrlSync": False,
}  # fmt: skip
_RUNBOOKS: Final = {
    "name": "runbooks", "label": "Runbooks", "type": "textbox", "hide": 2, "skipUrlSync": False,
    "query": "https://git.example.org/mkwrite/docs/runbooks",
    "current": {"text": "https://git.example.org/mkwrite/docs/runbooks",
                "value": "https://git.example.org/mkwrite/docs/runbooks"},
    "options": [],
}  # fmt: skip


def values(name: str, label: str, series: str, *, one: bool = False, none: bool = False) -> dict[str, Any]:
    """Return a variable: the values of a label in ``series``.

    ``one``: only one is chosen; ``none``: series may lack the label.
    """
    query = f"label_values({series}, {name})"
    chosen = {} if one else {"selected": True, "text": ["All"], "value": ["$__all"]}
    return {
        "name": name, "label": label, "type": "query", "datasource": _SOURCE, "definition": query,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": not one, "includeAll": not one,
        "allValue": None if one else ".*" if none else ".+", "current": chosen, "hide": 0, "regex": "",
        "skipUrlSync": False, "options": [],
    }  # fmt: skip


def number(name: str, label: str, *choices: int) -> dict[str, Any]:
    """Return a variable: one of these numbers, the first unless another is chosen."""
    options = [{"selected": one == choices[0], "text": str(one), "value": str(one)} for one in choices]
    return {
        "name": name, "label": label, "type": "custom", "query": ",".join(map(str, choices)), "current": options[0],
        "options": options, "multi": False, "includeAll": False, "hide": 0, "skipUrlSync": False,
    }  # fmt: skip


def _annotation(name: str, expression: str, text: str) -> dict[str, Any]:
    return {
        "name": name, "type": "dashboard", "datasource": _SOURCE, "enable": True, "iconColor": "red",
        "expr": expression, "titleFormat": name, "textFormat": text, "step": "60s",
    }  # fmt: skip


def _placed(rows: tuple[Row, ...]) -> Any:
    """Yield rows and panels, each with its place: panels from left to right, as many as fit."""
    number, y = 0, 0
    for row in rows:
        number += 1
        inner, title_y = [], y
        x, y, height = 0, y + 1, 0
        for panel in row.panels:
            number += 1
            if x + panel.width > _WIDTH:
                x, y, height = 0, y + height, 0
            inner.append(_panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": panel.height}))
            x, height = x + panel.width, max(height, panel.height)
        y += height
        shut = row.collapsed
        if shut:
            y = title_y + 1
        place = {"x": 0, "y": title_y, "w": _WIDTH, "h": 1}
        yield {"id": 1000 + number, "type": "row", "title": row.title, "collapsed": shut, "gridPos": place,
               "panels": inner if shut else []}  # fmt: skip
        if not shut:
            yield from inner


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    table = panel.kind == "table"
    made: dict[str, Any] = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "links": _series_links(panel)}, "overrides": []},
        "options": _OPTIONS[panel.kind],
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": legend,
                **({"instant": True, "format": "table"} if table else {}),
                **({"format": "heatmap"} if panel.kind == "heatmap" else {}),
            }
            for index, (expression, legend) in enumerate(panel.queries)
        ],
    }
    if panel.runbook:
        url = f"${{runbooks}}/{panel.runbook}.md"
        made["links"] = [{"title": f"Runbook: {panel.runbook}", "url": url, "targetBlank": True}]
    if table:
        hidden = {"Time": True, "__name__": True}
        options = {"excludeByName": hidden, "renameByName": {"Value": panel.value}}
        made["transformations"] = [{"id": "organize", "options": options}]
    return made


def _series_links(panel: Panel) -> list[dict[str, Any]]:
    if not panel.to:
        return []
    where = "__data.fields" if panel.kind == "table" else "__field.labels"
    chosen = "&".join(f"var-{name}=${{{where}.{name}}}" for name in _TARGETS[panel.to])
    links = [{"title": f"This {panel.to}", "url": f"/d/mkwrite-{panel.to}?{chosen}&${{__url_time_range}}"}]
    page = {"title": "Landing page of the host", "url": f"http://${{{where}.instance}}/", "targetBlank": True}
    return [*links, page]


_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "stat": {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area",
    },
    "timeseries": {
        "legend": {"showLegend": True, "displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "heatmap": {
        "calculate": False, "cellGap": 1, "yAxis": {"unit": "s", "axisPlacement": "left"},
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "scale": "exponential", "exponent": 0.5},
        "cellValues": {"unit": "short"}, "legend": {"show": True}, "tooltip": {"show": True, "yHistogram": True},
        "rowsFrame": {"layout": "le"},
    },
    "table": {"showHeader": True},
}  # fmt: skip
