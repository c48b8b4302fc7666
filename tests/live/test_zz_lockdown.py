"""Lockdown. Of all tests the last ones: the kernel takes no mode back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.live.guest import WORKLOAD, command, run
from tests.live.refusals import Refusal, prepare

pytestmark = pytest.mark.nightly

MODE = Path("/sys/kernel/security/lockdown")
FIRST = 43


@pytest.fixture(scope="module", autouse=True)
def _securityfs() -> None:
    if not MODE.exists():
        run("mount", "-t", "securityfs", "none", "/sys/kernel/security")


def doctor() -> tuple[int, dict[str, str], set[str]]:
    """Exit code, texts of the rows about the host, and ids."""
    done = subprocess.run(command("doctor", "--json"), capture_output=True, text=True, check=False)
    rows = json.loads(done.stdout)["rows"]
    return done.returncode, {row["name"]: row["text"] for row in rows if row["section"] == "host"}, {
        row["id"] for row in rows
    }  # fmt: skip


def test_integrity_does_no_harm() -> None:
    place = prepare(Refusal("ext4", "ext4", "ENOSPC", size=64, late=True), "-lockdown").parent
    MODE.write_text("integrity")
    code, rows, _ = doctor()
    assert (code, rows["lockdown"]) == (0, "integrity (harmless to tracing)")
    writer = [WORKLOAD, "first-write", str(place / "a"), str(FIRST)]
    found = json.loads(run(*command("count", "--json", "--fs", "ext4", "--", *writer)).splitlines()[-1])
    assert sum(call["latency"]["count"] for call in found["calls"]) == FIRST


def test_confidentiality_ends_tracing() -> None:
    MODE.write_text("confidentiality")
    code, _, found = doctor()
    assert (code, "lockdown-confidentiality" in found) == (13, True)
    for arguments in (("count", "-d", "1"), ("sigbus", "-d", "1"), ("count", "--backend", "tracepoint", "-d", "1")):
        done = subprocess.run(command(*arguments), capture_output=True, text=True, check=False)
        assert (done.returncode, "confidentiality" in done.stderr) == (13, True), (arguments, done.stderr)
        assert "Traceback" not in done.stderr
