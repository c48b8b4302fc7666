"""Each recipe is set up once; what was seen of it is one row of the results."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.filesystems import disks, remote
from tests.filesystems.observe import Observation, observe
from tests.filesystems.recipe import Recipe, now
from tests.filesystems.stage import Stage

RECIPES = (*disks.RECIPES, *remote.RECIPES)
_ROWS: dict[str, dict[str, Any]] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "recipe" in metafunc.fixturenames:
        rows = [pytest.param(one, id=one.name, marks=() if one.short else (pytest.mark.matrix,)) for one in RECIPES]
        metafunc.parametrize("recipe", rows, scope="module")


@pytest.fixture(scope="module")
def observed(recipe: Recipe) -> Iterator[Observation | None]:
    """What was seen of it; None where it is not there to be seen."""
    _ROWS[recipe.name] = _row(recipe, None)
    if now(recipe.absent) or recipe.build is None:
        yield None
        return
    with Stage(recipe.name) as stage:
        found = observe(recipe, stage)
        _ROWS[recipe.name] = _row(recipe, found)
        yield found


def _row(recipe: Recipe, found: Observation | None) -> dict[str, Any]:
    """One row for ``matrix``; its tests say which backends were exact."""
    absent = now(recipe.absent)
    state = "absent" if absent else "not run" if recipe.unrun else "mmap refused" if recipe.refused else "seen"
    if state == "seen" and found is None:
        state = "failed"
    explained = found.explained if found else None
    return {
        "handler": now(recipe.handler),
        "state": "no call" if state == "seen" and not now(recipe.handler) else state,
        "why": absent or recipe.unrun or recipe.why,
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
