"""Alerts on calls that last fire and resolve at a real Prometheus server, and the one on a dead exporter fires."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.live.guest import WORKLOAD, eventually, run
from tests.live.test_export import SCRAPE_S, calls, exporter, get, small
from tests.observability.panels import DASHBOARDS
from tests.observability.prometheus import Prometheus

pytestmark = pytest.mark.nightly

#: Of a rule's minutes, so many seconds are made.
WINDOW_S = 25


def hasty(rules: Path, directory: Path) -> Path:
    """The rules with minutes made seconds, so that nobody has to wait, and a disk looked at for less than an hour."""
    text = re.sub(r"\[(?:5|10|15)m\]", f"[{WINDOW_S}s]", rules.read_text()).replace("[1h]", f"[{2 * WINDOW_S}s]")
    text = text.replace("offset 10m", f"offset {WINDOW_S}s")
    text = text.replace("mkwrite_oldest_inflight_seconds > 30", "mkwrite_oldest_inflight_seconds > 3")
    copy = directory / rules.name
    copy.write_text(re.sub(r"for: \w+", "for: 1s", text).replace("interval: 30s", "interval: 1s"))
    return copy


@pytest.mark.usefixtures("clean_kernel")
def test_alerts_on_calls_that_last_fire_and_resolve_and_one_on_a_dead_exporter_fires(
    mounts: dict[str, Path], tmp_path: Path
) -> None:
    place = small("lasting")
    rules = [hasty(DASHBOARDS / name, tmp_path) for name in ("rules.yml", "alerts.yml")]
    # In the background: under emulation it would leave no time for anything else.
    storm = subprocess.Popen(["nice", "-n", "19", WORKLOAD, "storm", str(mounts["ext4"] / "export"), "900", "1"])
    try:
        with (
            exporter("--risk") as (process, address),
            Prometheus(tmp_path, {"mkwrite": address}, rules, SCRAPE_S) as server,
        ):
            blocked = subprocess.Popen(["nice", "-n", "19", WORKLOAD, "storm", str(place / "frozen"), "900", "7"])
            assert eventually(lambda: calls(get(address), place) > 100)
            run("fsfreeze", "--freeze", str(place))
            assert eventually(lambda: server.alerts() >= {"MkwriteCallsStuck"})
            blocked.terminate()  # which it sees when its calls return
            run("fsfreeze", "--unfreeze", str(place))
            assert blocked.wait(300) == 0
            assert eventually(lambda: server.fired() >= {"MkwriteCallsSlow", "MkwriteTasksWait"})
            provoked = {"MkwriteCallsStuck", "MkwriteCallsSlow", "MkwriteTasksWait"}
            assert eventually(lambda: not server.alerts() & provoked)  # they resolve
            process.send_signal(signal.SIGTERM)
            assert process.wait(300) == 0
            assert eventually(lambda: server.alerts() >= {"MkwriteDown"})
    finally:
        storm.kill()
        storm.wait()
