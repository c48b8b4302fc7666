"""What all unit tests have: sessions that are made up, and the patience of a busy machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from fake_session import FakeSession, fake_module
from hypothesis import settings

# It may stop for longer than any example of hypothesis takes.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def fake_sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeSession]]:
    """Every session is a made-up one."""
    monkeypatch.setitem(sys.modules, "tracer.session", fake_module())
    FakeSession.opened.clear()
    FakeSession.closed = 0
    yield FakeSession
    assert FakeSession.closed == len(FakeSession.opened)
