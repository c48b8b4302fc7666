"""Calls that are refused while a tracer comes and goes: it tells them rightly, the first and the last."""

from __future__ import annotations

import subprocess

import pytest

from tests.live.guest import eventually
from tests.live.refusals import OFFSET, SIZE, VICTIM, Refusal, prepare
from tracer.model.failures import Class, FailureSource
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.session import Session

#: More than it is left time for.
REFUSALS = 1 << 30


@pytest.mark.nightly
def test_a_refusal_is_never_told_as_one_of_a_read(backend: Backend) -> None:
    file = prepare(Refusal(f"opening-{backend}", "ext4", "ENOSPC"))
    with subprocess.Popen([VICTIM, "catch", file, str(SIZE), str(OFFSET), str(REFUSALS)]) as victim:
        try:
            with Session(Options(backend, waits=True)) as session:
                assert eventually(lambda: sum(session.snapshot().failures.values()) > 1000)
                told = session.failures()
                final = session.finish()
        finally:
            victim.kill()
    assert {(failure.source, failure.errno_name) for failure in told} == {(FailureSource.PAGE_MKWRITE, "ENOSPC")}
    # What came last is in no report, but in the counts.
    assert {(series.kind, series.errno) for series in final.failures} == {(Class.REFUSED, "ENOSPC")}
