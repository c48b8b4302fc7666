"""A pytest plugin that puts into the junit file how long each fixture took (``-p tests.runner.timing``)."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Final

import pytest

#: What the properties' names begin with; the rest is the fixture's, the value its seconds.
FIXTURE: Final = "fixture "


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(request: pytest.FixtureRequest) -> Generator[None, object, object]:
    """Note how long the setup of a fixture took, less those that it depends on: pytest sets them up before."""
    start = time.monotonic()
    try:
        return (yield)
    finally:
        item = request._pyfuncitem  # the test that is the first to need it
        took = f"{time.monotonic() - start:.3f}"
        item.user_properties.append((f"{FIXTURE}{request.fixturename}", took))
