"""Where the core's function cannot be hooked, every handler is, those of modules loaded later too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.live.guest import NO_LOSS, WORKLOAD, FaultPath, Options, calls, command, mount, run, workload
from tracer.model.calls import Initiator, Outcome
from tracer.model.hooks import Backend
from tracer.probes import plan
from tracer.session import Session


@pytest.mark.usefixtures("clean_kernel")
def test_all_handlers_are_hooked_where_the_core_cannot_be(
    mounts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "CORE", "do_page_mkwrite_inlined")
    if Path("/sys/module/nilfs2").exists():  # other tests need it, too
        run("modprobe", "-r", "nilfs2")
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


@pytest.mark.nightly
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


def test_without_tracefs_fentry_does_it_alone(mounts: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    writer = (WORKLOAD, "first-write", str(mounts["ext4"] / "no-tracefs"), "37")
    count = command("count", "--json", "-o", str(out), "--fs", "ext4", "--", *writer)
    hide = 'umount -R /sys/kernel/tracing; umount -R /sys/kernel/debug; exec "$@"'
    run("unshare", "--mount", "sh", "-c", hide, "sh", *count)
    found = json.loads(out.read_text())
    assert [call["latency"]["count"] for call in found["calls"]] == [37]
    of_calls = [hook for hook in found["hooks"] if hook["function"] in ("do_page_mkwrite", "do_wp_page")]
    assert [(hook["backend"], hook["attached"]) for hook in of_calls] == [("fentry", True)] * 3
    # Return probes of what tells failures need it; each that is missing says why.
    assert all("tracefs" in hook["detail"] for hook in found["hooks"] if not hook["attached"])
