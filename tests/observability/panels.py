"""The dashboard's queries, ready to be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
DASHBOARDS: Final = ROOT / "dashboards"


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana reads it."""
    loaded: dict[str, Any] = json.loads((DASHBOARDS / "mkwrite.json").read_text())
    return loaded


def panels() -> list[dict[str, Any]]:
    """Every panel but the titles of rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


@dataclass(frozen=True)
class Query:
    """One expression, and whose it is."""

    panel: str
    expression: str

    def expanded(self, interval: str = "1m", span: str = "5m") -> str:
        """The expression with Grafana's variables replaced as when all of everything is selected."""
        values: Mapping[str, str] = {
            "$__rate_interval": interval,
            "$__range": span,
            "$job": ".+",
            "$instance": ".+",
            "$fstype": ".*",
            "$mountpoint": ".*",
        }
        expression = self.expression
        for variable, value in values.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression, expression
        return expression


def queries() -> Iterator[Query]:
    """Of all panels and annotations."""
    for panel in panels():
        for target in panel["targets"]:
            yield Query(panel["title"], target["expr"])
    for annotation in dashboard()["annotations"]["list"]:
        yield Query(f"annotation {annotation['name']}", annotation["expr"])
