"""Filters and labels: what is not asked for is not counted, what is asked for is whole."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.live.guest import (
    SOME_RINGS,
    WORKLOAD,
    Backend,
    FaultPath,
    Filters,
    Options,
    Steps,
    calls,
    run,
    workload,
)
from tracer.model.calls import Initiator, Outcome, WpOutcome
from tracer.model.hooks import Loss
from tracer.model.options import By
from tracer.session import Session


def test_copies_and_reuses_by_comm(backend: Backend) -> None:
    pages = 1009
    with Session(Options(backend=backend, filters=Filters(comms=("workload",)), failures=False)) as session:
        steps = Steps("cow", pages)
        for expected in (WpOutcome.COPIED, WpOutcome.REUSED):
            steps.reach()
            before = session.snapshot()
            steps.go()
            steps.reach()
            found = session.snapshot().since(before)
            steps.go()
            assert found.wp_faults[expected] == sum(found.wp_faults.values()) == pages
        steps.end()


def test_by_process_and_filesystem(backend: Backend, mounts: dict[str, Path]) -> None:
    with Session(Options(backend=backend, filters=Filters(fs=("xfs",)), by=By.PROCESS, failures=False)) as session:
        workload("first-write", mounts["ext4"] / "other", 5)
        writers = [
            subprocess.Popen([WORKLOAD, "first-write", str(mounts["xfs"] / f"by-{n}"), str(n)]) for n in (11, 13)
        ]
        for writer in writers:
            assert writer.wait() == 0
        final = session.finish()
    assert {series.who: histogram.count for series, histogram in final.calls.items()} == {
        f"workload[{writers[0].pid}]": 11,
        f"workload[{writers[1].pid}]": 13,
    }


def test_by_file_and_mount(backend: Backend, mounts: dict[str, Path]) -> None:
    place = mounts["btrfs"]
    with Session(
        Options(backend=backend, filters=Filters(mounts=(str(place),)), by=By.FILE, failures=False)
    ) as session:
        workload("first-write", mounts["ext4"] / "other", 5)
        workload("first-write", place / "one", 17)
        workload("first-write", place / "two", 19)
        final = session.finish()
    assert {series.who: histogram.count for series, histogram in final.calls.items()} == {
        f"{place}/one": 17,
        f"{place}/two": 19,
    }


def test_by_cgroup(backend: Backend, mounts: dict[str, Path]) -> None:
    root = Path("/tmp/live/cgroup")
    if not root.exists():
        root.mkdir(parents=True)
        run("mount", "-t", "cgroup2", "none", str(root))
    for name in ("wanted", "wanted/below", "other"):
        (root / name).mkdir(exist_ok=True)

    def write_in(cgroup: str, pages: int) -> None:
        script = f"echo $$ > {root}/{cgroup}/cgroup.procs && exec {WORKLOAD} first-write {mounts['ext4']}/cg {pages}"
        run("sh", "-c", script)

    with Session(
        Options(backend=backend, filters=Filters(cgroups=("/wanted",)), by=By.CGROUP, failures=False)
    ) as session:
        for cgroup, pages in (("wanted", 7), ("wanted/below", 11), ("other", 13)):
            write_in(cgroup, pages)
        final = session.finish()
    assert {series.who: histogram.count for series, histogram in final.calls.items()} == {
        "/wanted": 7,
        "/wanted/below": 11,
    }


def test_a_handler_hooked_by_itself(mounts: dict[str, Path]) -> None:
    options = Options(filters=Filters(handlers=("ext4_page_mkwrite",)), failures=False)
    with Session(options) as session:
        assert session.backend is Backend.KPROBE
        assert "do_page_mkwrite" not in {hook.function for hook in session.hooks}
        workload("first-write", mounts["xfs"] / "other", 5)
        workload("first-write", mounts["ext4"] / "handler", 23)
        workload("write-after-read", mounts["ext4"] / "handler2", 29)
        final = session.finish()
    assert calls(final, handler="ext4_page_mkwrite", initiator=Initiator.UNKNOWN, outcome=Outcome.WRITABLE) == 23 + 29
    assert calls(final) == 23 + 29
    assert final.lost == dict.fromkeys(Loss, 0)


def test_a_handler_by_its_address_and_a_pid(mounts: dict[str, Path]) -> None:
    # The process is chosen before it runs: it waits for a line.
    script = f"read go; exec {WORKLOAD} first-write {mounts['xfs']}/pid 31"
    chosen = subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE)
    filters = Filters(handlers=("xfs_filemap_page_mkwrite",), pids=(chosen.pid,))
    with Session(Options(backend=Backend.FENTRY, filters=filters, failures=False)) as session:
        workload("first-write", mounts["xfs"] / "other", 5)
        chosen.communicate(b"\n")
        assert chosen.returncode == 0
        final = session.finish()
    assert calls(final, handler="xfs_filemap_page_mkwrite", initiator=Initiator.USER) == 31
    assert calls(final) == 31


def test_full_maps_are_counted_as_lost(both: Backend, mounts: dict[str, Path]) -> None:
    # With two places for shared series, what finds its front cell taken by another file is lost, and counted so.
    with Session(
        Options(backend=both, by=By.FILE, max_series=2, filters=Filters(fs=("ext4",)), failures=False)
    ) as session:
        for number in range(101):
            workload("first-write", mounts["ext4"] / f"many-{number}", 1)
        final = session.finish()
    assert calls(final) + final.lost[Loss.SERIES_FULL] == 101
    assert final.lost[Loss.SERIES_FULL] > 0


def test_slow_calls_are_sent_one_by_one(both: Backend, mounts: dict[str, Path]) -> None:
    with Session(Options(backend=both, slower_ns=1, filters=Filters(fs=("ext4",)), failures=False)) as session:
        workload("first-write", mounts["ext4"] / "slow", 37)
        final = session.finish()
        events = session.events()
    assert calls(final) == len(events) == 37
    assert {event.file for event in events} == {f"{mounts['ext4']}/slow"}
    assert sorted(event.offset for event in events) == [n * (256 << 10) for n in range(37)]
    assert sum(event.latency_ns for event in events) == sum(h.sum_ns for h in final.calls.values())
    assert {event.uid for event in events} == {os.getuid()}


def test_events_that_nobody_reads_are_counted_as_lost(mounts: dict[str, Path]) -> None:
    with Session(Options(slower_ns=1, filters=Filters(fs=("tmpfs", "ext4")), failures=False)) as session:
        made = 0
        while made < SOME_RINGS:
            made += int(workload("storm", mounts["ext4"] / "unread", 3, 2))
        final = session.finish()
        received = len(session.events())
    assert calls(final, path=FaultPath.FIRST_WRITE) == made
    assert received + final.lost[Loss.EVENTS_FULL] == calls(final)
    # The ring holds a megabyte, some thousand events of this kind.
    assert final.lost[Loss.EVENTS_FULL] > 0
