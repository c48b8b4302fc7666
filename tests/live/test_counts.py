"""Counts are exact: by filesystem, path, initiator and outcome, on both backends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.live.conftest import AGAIN, FIRST, OWN, READ_INTO, REMOTE, Scenario
from tests.live.guest import HANDLERS, NO_LOSS, FaultPath, Outcome, calls
from tracer.model.calls import Initiator, WpOutcome, device_name
from tracer.model.failures import Class

pytestmark = pytest.mark.every


@pytest.mark.parametrize("fstype", HANDLERS)
@pytest.mark.parametrize(
    ("part", "path", "expected"),
    [("first-write", FaultPath.FIRST_WRITE, FIRST), ("write-after-read", FaultPath.WRITE_PROTECT, AGAIN)],
)
def test_calls_are_counted_exactly(
    scenario: Scenario, mounts: dict[str, Path], fstype: str, part: str, path: FaultPath, expected: int
) -> None:
    snapshot = scenario.parts[f"{part} {fstype}"]
    handler = HANDLERS[fstype]
    place = str(mounts[fstype])
    if handler is None:
        assert calls(snapshot, mountpoint=place) == 0
        return
    wanted = {"mountpoint": place, "fstype": fstype, "handler": handler, "path": path, "outcome": Outcome.WRITABLE}
    assert calls(snapshot, initiator=Initiator.USER, **wanted) == expected
    assert calls(snapshot, mountpoint=place) == expected
    device = {device_name(series.dev) for series in snapshot.calls if series.mountpoint == place}
    assert device == {_mountinfo_device(place)}


def _mountinfo_device(place: str) -> str:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[4] == place:
            return fields[2]
    raise AssertionError(f"{place} is not mounted")


def test_latencies_are_sane(scenario: Scenario) -> None:
    assert scenario.final is not None
    for histogram in scenario.final.calls.values():
        assert histogram.sum_ns >= histogram.max_ns > 0
        assert histogram.quantile(0.0) <= histogram.quantile(0.5) <= histogram.quantile(1.0) <= histogram.max_ns
        # No call takes less than 64 ns, and none of these takes a minute.
        assert histogram.buckets[0] == 0
        assert histogram.max_ns < 60e9


def test_a_system_call_is_told_from_an_instruction(scenario: Scenario) -> None:
    snapshot = scenario.parts["read-into"]
    assert calls(snapshot, initiator=Initiator.KERNEL, path=FaultPath.FIRST_WRITE) == READ_INTO
    assert calls(snapshot, fstype="ext4") == READ_INTO


def test_a_write_to_its_own_memory_by_get_user_pages_is_not_remote(scenario: Scenario) -> None:
    snapshot = scenario.parts["own-memory"]
    assert calls(snapshot, initiator=Initiator.KERNEL, path=FaultPath.FIRST_WRITE) == OWN
    assert calls(snapshot, fstype="ext4") == OWN


def test_a_write_by_another_process_is_remote(scenario: Scenario) -> None:
    snapshot = scenario.parts["remote-write"]
    assert calls(snapshot, initiator=Initiator.REMOTE, path=FaultPath.FIRST_WRITE) == REMOTE
    assert calls(snapshot, fstype="ext4") == REMOTE


def test_a_refused_write_is_a_failure_with_all_about_it(scenario: Scenario, mounts: dict[str, Path]) -> None:
    assert scenario.victim is not None
    assert scenario.victim.returncode == -signal.SIGBUS
    (event,) = scenario.failures
    assert (event.outcome, event.errno_name) == (Outcome.SIGBUS, "ENOSPC")
    assert scenario.final is not None
    counted = {(series.mountpoint, series.kind, series.errno): n for series, n in scenario.final.failures.items()}
    assert counted == {(str(mounts["ext4"]), Class.REFUSED, "ENOSPC"): 1}
    assert (event.pid, event.tid, event.comm, event.uid) == (
        scenario.victim_pid,
        scenario.victim_pid,
        "workload",
        os.getuid(),
    )
    assert event.file == f"{mounts['ext4']}/ledger \x1b[31m\n.db"
    assert not event.deleted
    assert event.inode == scenario.victim_inode
    assert (event.fstype, event.mountpoint, event.handler) == ("ext4", str(mounts["ext4"]), HANDLERS["ext4"])
    assert (event.path, event.initiator) == (FaultPath.FIRST_WRITE, Initiator.USER)
    assert event.offset % (256 << 10) == 0
    assert event.vm_fault & 2  # VM_FAULT_SIGBUS
    assert event.latency_ns > 0
    assert calls(scenario.final, outcome=Outcome.SIGBUS) == 1


def test_write_protect_faults_of_shared_pages_are_wp_faults(scenario: Scenario) -> None:
    for fstype in HANDLERS:
        faults = scenario.parts[f"write-after-read {fstype}"].wp_faults
        # tmpfs maps its pages writable at once: it has nothing to be notified of.
        assert faults[WpOutcome.SHARED] == (AGAIN if HANDLERS[fstype] else 0)
        assert faults[WpOutcome.FAILED] == 0


def test_nothing_was_lost(scenario: Scenario) -> None:
    assert scenario.final is not None
    assert scenario.final.lost == NO_LOSS
    assert all(hook.attached for hook in scenario.final.hooks)
