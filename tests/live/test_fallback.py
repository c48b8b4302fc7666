"""Where the core's function cannot be hooked, every handler is, those of modules loaded later too."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.live.guest import NO_LOSS, FaultPath, Options, calls, command, mount, workload
from tracer.model import Backend, Initiator, Outcome
from tracer.probes import plan
from tracer.session import Session


@pytest.mark.usefixtures("clean_kernel")
def test_all_handlers_are_hooked_where_the_core_cannot_be(
    mounts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CORE", "do_page_mkwrite_inlined")
    with Session(Options()) as session:
        assert session.backend is Backend.KPROBE
        hooked = {hook.function for hook in session.hooks}
        assert {"ext4_page_mkwrite", "xfs_filemap_page_mkwrite", "btrfs_page_mkwrite"} <= hooked
        assert any("initiators are unknown" in note for note in session.snapshot().notes)
        for number, (fstype, handler) in enumerate(
            (("ext4", "ext4_page_mkwrite"), ("xfs", "xfs_filemap_page_mkwrite"), ("btrfs", "btrfs_page_mkwrite"))
        ):
            workload("first-write", mounts[fstype] / "fallback", 11 + number)
            found = session.snapshot()
            assert calls(found, fstype=fstype, handler=handler, initiator=Initiator.UNKNOWN) == 11 + number
        # A module that was not there when the session opened.
        assert "nilfs_page_mkwrite" not in hooked
        place = mount("nilfs2")
        session.snapshot()
        workload("first-write", place / "later", 29)
        final = session.finish()
    assert "nilfs_page_mkwrite" in {hook.function for hook in final.hooks}
    assert calls(final, fstype="nilfs2", handler="nilfs_page_mkwrite", outcome=Outcome.WRITABLE) == 29
    assert calls(final, path=FaultPath.FIRST_WRITE) == 11 + 12 + 13 + 29
    assert final.lost == NO_LOSS


def test_without_privileges_the_exit_code_says_so() -> None:
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--", *command("count", "-d", "1")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 10, done.stderr
    assert "CAP_BPF" in done.stderr
    assert "Traceback" not in done.stderr
