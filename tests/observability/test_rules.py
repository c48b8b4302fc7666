"""Recording rules and alerts, checked and tried with Prometheus' own tools."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .panels import DASHBOARDS, ROOT

RULES = [DASHBOARDS / "rules.yml", DASHBOARDS / "alerts.yml"]

TESTS = sorted((Path(__file__).parent / "rules").glob("*.yml"))


def promtool(*arguments: object, stdin: str = "") -> str:
    """Run promtool; its output."""
    done = subprocess.run(["promtool", *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def alerts() -> list[dict[str, Any]]:
    """Every alert."""
    groups = yaml.safe_load((DASHBOARDS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_rules_are_right_and_fire_when_they_should() -> None:
    promtool("check", "rules", *RULES)
    promtool("test", "rules", *TESTS)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_what_and_what_to_do(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    annotations = alert["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["summary"].endswith(".") and annotations["description"].endswith(".")
    runbook = (ROOT / annotations["runbook_url"]).read_text()
    assert runbook.startswith(f"# {alert['alert']}\n")
    for part in ("What it means", "Find out more", "What to do"):
        assert f"## {part}\n" in runbook
    assert alert["alert"] in (DASHBOARDS / "README.md").read_text()


def test_every_alert_is_tried_and_every_runbook_has_one() -> None:
    tried = [case for path in TESTS for case in yaml.safe_load(path.read_text())["tests"]]
    fired = {case["alertname"] for one in tried for case in one.get("alert_rule_test", []) if case.get("exp_alerts")}
    names = {alert["alert"] for alert in alerts()}
    assert fired == names == {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")}


def test_the_metrics_follow_the_conventions() -> None:
    import http.client

    from .exporter import exporter

    with exporter() as address:
        connection = http.client.HTTPConnection(address, timeout=300)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
    assert promtool("check", "metrics", stdin=text) == ""
