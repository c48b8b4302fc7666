"""docs/metrics.md: every metric with its type, unit, labels and a query that Prometheus understands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from .panels import ROOT
from .test_rules import promtool

TEXT = (ROOT / "docs" / "metrics.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}
METRICS = sorted(title for title in SECTIONS if title.startswith("mkwrite_"))


def queries(section: str) -> list[str]:
    """The indented blocks, but for commands of a shell."""
    blocks = re.findall(r"(?:^ {4}.+\n)+", section, re.MULTILINE)
    return [block for block in blocks if "mkwrite_" in block]


@pytest.mark.parametrize("title", METRICS)
def test_a_metric_has_type_unit_labels_and_a_query(title: str) -> None:
    section = SECTIONS[title]
    assert re.search(r"\bType: (counter|gauge|histogram)\b", section)
    assert "Unit: " in section or title.endswith("_info")
    assert "Labels: " in section or "No labels." in section
    assert queries(section)


def test_every_query_is_one(tmp_path: Path) -> None:
    expressions = []
    for title in METRICS:
        for block in queries(SECTIONS[title]):
            # A comment ends an expression that is the first of several.
            lines = [line.partition("#") for line in block.splitlines()]
            if any(mark for _, mark, _ in lines):
                expressions += [expression for expression, _, _ in lines]
            else:
                expressions.append(block)
    rules = [{"record": f"example:{number}", "expr": text.strip()} for number, text in enumerate(expressions)]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "examples", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)
    assert len(rules) >= len(METRICS)


def test_the_table_names_every_metric() -> None:
    table = re.findall(r"^\| \[`(\w+)`\]", TEXT, re.MULTILINE)
    risk = {name for title in METRICS if title.startswith("mkwrite_risk") for name in title.split(", ")}
    assert set(table) | risk == {name for title in METRICS for name in title.split(", ")}
