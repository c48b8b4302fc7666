"""The systemd unit, as far as it can be judged without running it."""

from __future__ import annotations

import re
import subprocess

from .panels import ROOT

UNIT = ROOT / "packaging" / "mkwrite-exporter.service"


def test_the_service_is_little_exposed() -> None:
    # The threshold is ten times the exposure, and is the last value that passes.
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=29", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_setting_is_known_to_systemd() -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(UNIT)], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "mkwrite-exporter.service" in line]
    # That mkwrite is not installed here is no fault of the unit's.
    assert [line for line in complaints if "is not executable" not in line] == []


def test_the_page_names_every_capability() -> None:
    page = (ROOT / "docs" / "deployment" / "systemd.md").read_text()
    found = re.search(r"^CapabilityBoundingSet=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert found
    for capability in found[1].split():
        assert f"`{capability}`" in page
