"""Each recipe is set up once; what was seen of it is one row of the results."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.filesystems.observe import Observation, observe
from tests.filesystems.recipe import Recipe, State, now
from tests.filesystems.stage import Stage

_ROWS: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="module")
def observed(recipe: Recipe) -> Iterator[Observation]:
    """What was seen of it."""
    _ROWS[recipe.name] = _row(recipe, None)
    with Stage(recipe.name) as stage:
        found = observe(recipe, stage)
        _ROWS[recipe.name] = _row(recipe, found)
        yield found


def _row(recipe: Recipe, found: Observation | None) -> dict[str, Any]:
    """One row for ``matrix``; its tests say which backends were exact."""
    explained = found.explained if found else None
    return {
        "release": os.uname().release,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "handler": now(recipe.handler),
        "state": recipe.state if found or recipe.state in (State.ABSENT, State.UNRUN) else "failed",
        "why": now(recipe.absent) or recipe.unrun or recipe.why,
        "exact": {},
        "calls": {
            path: {backend: sum(calls.count for calls in series.values()) for backend, series in backends.items()}
            for path, backends in found.calls.items()
        }
        if found
        else {},
        "full": found.full if found else None,
        "late": found.late if found else "",
        "errno": explained.diagnosis.errno if explained else "",
        "errno_from": explained.failure.errno_from if explained else "",
    }


def pytest_runtest_setup(item: pytest.Function) -> None:
    """What is not set up has a row, too."""
    if "recipe" in item.fixturenames:
        recipe = item.callspec.params["recipe"]
        assert isinstance(recipe, Recipe)
        _ROWS.setdefault(recipe.name, _row(recipe, None))


def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[None]) -> None:
    """Note how each backend did."""
    if item.originalname == "test_calls_are_counted_exactly" and call.when == "call":
        recipe = item.callspec.params["recipe"]
        assert isinstance(recipe, Recipe)
        exact = _ROWS[recipe.name]["exact"]
        backend = item.callspec.params["backend"]
        exact[backend] = exact.get(backend, True) and not call.excinfo


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say at once why a test failed: a guest that dies takes the summary with it."""
    if report.failed:
        print(f"\n{report.nodeid} {report.when}\n{report.longreprtext}", flush=True)


def pytest_runtest_logfinish() -> None:
    """Leave the rows to the runner, those of a guest that dies later too."""
    if _ROWS and (where := os.environ.get("RESULTS")):
        Path(where).write_text(json.dumps(_ROWS, indent=1) + "\n")
