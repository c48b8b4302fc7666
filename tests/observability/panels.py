"""The dashboards' queries, ready to be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
DASHBOARDS: Final = ROOT / "dashboards"
NAMES: Final = ("mkwrite-fleet", "mkwrite-host", "mkwrite-filesystem")
#: The row of what only the tracepoint backend tells.
TRACEPOINTS: Final = "Tracepoint backend"


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
    loaded: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return loaded


def panels(name: str) -> list[dict[str, Any]]:
    """Every panel but the titles of rows; each with its ``row``."""
    found, row = [], ""
    for panel in dashboard(name)["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        else:
            found.append({**panel, "row": row})
    return found


@dataclass(frozen=True)
class Query:
    """One expression, and whose it is."""

    panel: str
    expression: str
    row: str = ""
    dashboard: str = ""

    def expanded(
        self,
        interval: str = "1m",
        span: str = "5m",
        *,
        cluster: str = ".*",
        instance: str = ".+",
        mountpoint: str = ".*",
    ) -> str:
        """The expression with Grafana's variables replaced, as when all is selected unless that is said."""
        expression = self.expression
        for variable, value in {
            "$__rate_interval": interval,
            "$__range_s": "300",
            "$__range": span,
            "$cluster": cluster,
            "$job": ".+",
            "${instance:regex}": instance,
            "${mountpoint:regex}": mountpoint,
            "$top": "10",
        }.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression, expression
        return expression


def queries(*, tracepoints: bool = False) -> Iterator[Query]:
    """Of all panels and annotations; of the tracepoint backend's those alone, or all others."""
    for name in NAMES:
        for panel in panels(name):
            if (panel["row"] == TRACEPOINTS) == tracepoints:
                for target in panel["targets"]:
                    yield Query(f"{name}: {panel['title']}", target["expr"], panel["row"], name)
        for annotation in () if tracepoints else dashboard(name)["annotations"]["list"]:
            yield Query(f"{name}: annotation {annotation['name']}", annotation["expr"], "", name)
