"""A file that its server has no more, under a client that has it mapped."""

from __future__ import annotations

import signal

import pytest

from tests.filesystems.recipe import Place
from tests.filesystems.remote import RECIPES
from tests.filesystems.stage import Stage as Setup
from tests.live.refusals import OFFSET, SIZE, Stage
from tests.live.reported import tell
from tracer.model.failures import Class, Disposition, FailureSource
from tracer.model.filesystems import rules
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.session import Session


def test_a_file_removed_on_the_server_is_stale(request: pytest.FixtureRequest, backend: Backend) -> None:
    (recipe,) = (recipe for recipe in RECIPES if recipe.name == "nfs3")
    assert recipe.build is not None
    with Setup(f"stale-{backend}") as setup:
        place = recipe.build(setup)
        assert isinstance(place, Place)
        export = place.fills
        assert export is not None
        file = place.path / "file"
        with (export / "file").open("wb") as stream:
            stream.truncate(SIZE)
        with Session(Options(backend, every_errno=True)) as session:
            stage = Stage(session)
            met = stage.victim("store", file, SIZE, OFFSET, meanwhile=lambda _pid: (export / "file").unlink())
    tell(request, backend, {"nfs-removed": met})
    assert met.returncode == -signal.SIGBUS
    (failure,) = met.failures
    assert (failure.source, failure.fstype, failure.file) == (FailureSource.FAULT, "nfs", str(file))
    assert failure.signal is not None
    assert failure.signal.disposition is Disposition.FATAL
    assert (failure.errno_name, failure.errno_from) in (("ESTALE", "filemap_read_folio"), ("ESTALE", "nfs_readpage"))
    diagnosis = met.explained.diagnosis
    assert (diagnosis.kind, diagnosis.errno, diagnosis.inferred_from) == (Class.MEDIA, "ESTALE", "")
    assert "stale" in diagnosis.cause
    # A server that may be dead is not asked.
    assert not rules("nfs").local
    assert met.explained.state.space is None
