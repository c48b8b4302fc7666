"""A device number that is used again: each filesystem that had it keeps its own names and counts."""

from __future__ import annotations

import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.live.guest import (
    NO_LOSS,
    ROOT,
    SIZES,
    Backend,
    Options,
    cgroup,
    frozen,
    inside,
    load_modules,
    lost,
    run,
    workload,
)
from tests.live.refusals import SIZE, VICTIM, Stage, fill
from tests.live.slow_disk import Waiter
from tracer.export.prometheus.collector import MkwriteCollector
from tracer.host.mounts import Mounts
from tracer.model.failures import Class
from tracer.model.options import Filters
from tracer.model.snapshot import Snapshot
from tracer.session import Session

#: Refusals of the first filesystem; calls on those that have its number after it.
REFUSED, FIRST, SECOND, THIRD = 5, 7, 11, 13
PLACES = {name: ROOT / "numbers" / name for name in ("full", "b", "c", "d", "spare")}


def number_of(place: Path) -> int:
    """The device number that the kernel has for what is mounted there."""
    found = Mounts.read(Path("/proc/self/mountinfo")).at(str(place))
    assert found is not None
    return found.dev


def tmpfs(place: Path, size: str = "64k") -> int:
    """A tmpfs, and its number."""
    run("mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place))
    return number_of(place)


def full_tmpfs(place: Path) -> int:
    """The same with no page left, and a file that has none yet."""
    found = tmpfs(place)
    with (place / "file").open("wb") as stream:
        stream.truncate(SIZE)
    fill(place)
    return found


def btrfs(place: Path) -> int:
    """A new btrfs, and its number, which is anonymous, too."""
    image = ROOT / f"{place.name}.img"
    with image.open("wb") as stream:
        stream.truncate(SIZES["btrfs"] << 20)
    run("mkfs.btrfs", "-q", "-f", str(image))
    run("mount", "-o", "loop", str(image), str(place))
    return number_of(place)


@pytest.fixture
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """A full tmpfs with a file that has no page yet, at PLACES["full"]; its number is the lowest that is free."""
    load_modules("loop", "btrfs")
    for place in PLACES.values():
        place.mkdir(parents=True, exist_ok=True)
    found = full_tmpfs(PLACES["full"])
    yield found
    for place in PLACES.values():
        with suppress(AssertionError):
            run("umount", str(place))


def refuse(stage: Stage, times: int = REFUSED, name: str = "full") -> None:
    """Let so many processes die of writing to the full filesystem."""
    for _ in range(times):
        met = stage.victim("store", PLACES[name] / "file", SIZE, 4096)
        assert met.returncode == -7


def failures(snapshot: Snapshot) -> dict[tuple[str, str, Class, str], int]:
    """Failures by filesystem, class and errno; signals that are sent somewhere on the host meanwhile have none."""
    return {(s.fstype, s.mountpoint, s.kind, s.errno): n for s, n in snapshot.failures.items() if s.dev}


def calls(snapshot: Snapshot) -> Counter[tuple[str, str]]:
    """Calls by filesystem."""
    found: Counter[tuple[str, str]] = Counter()
    for series, histogram in snapshot.calls.items():
        found[series.fstype, series.mountpoint] += histogram.count
    return found


OLD = {("tmpfs", str(PLACES["full"]), Class.TMPFS_FULL, "ENOSPC"): REFUSED}


def test_filesystems_that_have_a_number_in_turn_are_counted_apart(number: int, backend: Backend) -> None:
    with Session(Options(backend)) as session:
        refuse(Stage(session))
        run("umount", str(PLACES["full"]))
        # Nobody looks between the first of them and the third.
        for name, count in (("b", FIRST), ("c", SECOND)):
            assert btrfs(PLACES[name]) == number
            workload("first-write", PLACES[name] / "file", count)
            run("umount", str(PLACES[name]))
        assert btrfs(PLACES["d"]) == number
        workload("first-write", PLACES["d"] / "file", THIRD)
        seen = session.snapshot()
        workload("first-write", PLACES["d"] / "more", FIRST)
        run("umount", str(PLACES["d"]))
        final = session.finish()
    print(calls(seen), failures(seen), calls(final), failures(final))
    for snapshot, more in ((seen, 0), (final, FIRST)):
        assert failures(snapshot) == OLD
        assert calls(snapshot).total() == FIRST + SECOND + THIRD + more
        assert calls(snapshot)["btrfs", str(PLACES["d"])] == THIRD + more
        assert all(series.fstype == "btrfs" for series in snapshot.calls)
        assert len({series.generation for series in snapshot.calls}) == 3
    assert lost(final) == NO_LOSS


@pytest.mark.nightly
def test_what_is_read_in_time_keeps_its_mount_point(number: int, backend: Backend) -> None:
    with Session(Options(backend, waits=True)) as session:
        refuse(Stage(session))
        session.snapshot()
        run("umount", str(PLACES["full"]))
        made = Counter({("btrfs", str(PLACES[name])): n for name, n in (("b", FIRST), ("c", SECOND), ("d", THIRD))})
        for name in ("b", "c", "d"):
            assert btrfs(PLACES[name]) == number
            workload("first-write", PLACES[name] / "file", made["btrfs", str(PLACES[name])])
            session.snapshot()
            run("umount", str(PLACES[name]))
        final = session.finish()
    print(calls(final), failures(final))
    assert (failures(final), calls(final)) == (OLD, made)
    waits = sum(time.ns for time in final.waits.values())
    assert sum(histogram.sum_ns for histogram in final.calls.values()) >= waits
    assert lost(final) == NO_LOSS


def samples(collector: MkwriteCollector) -> dict[tuple[str, str, str, str], float]:
    """Failures and calls that are shown, by filesystem: what they are of, with class and errno."""
    found: dict[tuple[str, str, str, str], float] = defaultdict(float)
    for family in collector.collect():
        if family.name not in ("mkwrite_failures", "mkwrite_calls"):
            continue
        for sample in family.samples:
            if sample.value and sample.name.endswith("_total"):
                labels = sample.labels
                what = f"{labels['class']} {labels['errno']}" if "class" in labels else "calls"
                found[family.name, labels["fstype"], labels["mountpoint"], what] += sample.value
    return dict(found)


def test_counters_of_a_filesystem_that_is_gone_stay_as_they_were(number: int, backend: Backend) -> None:
    with Session(Options(backend, make_room=True)) as session:
        collector = MkwriteCollector(session, "1", mounts=lambda: Mounts.read())
        refuse(Stage(session))
        old = samples(collector)
        assert old == {("mkwrite_failures", "tmpfs", str(PLACES["full"]), "tmpfs_full ENOSPC"): REFUSED}
        run("umount", str(PLACES["full"]))
        expected = dict(old)
        for name, count in (("b", FIRST), ("c", SECOND)):
            assert btrfs(PLACES[name]) == number
            workload("first-write", PLACES[name] / "file", count)
            expected["mkwrite_calls", "btrfs", str(PLACES[name]), "calls"] = count
            assert samples(collector) == expected
            run("umount", str(PLACES[name]))
            assert samples(collector) == expected
        final = session.finish()
    assert lost(final) == NO_LOSS


def test_a_filesystem_of_another_mount_namespace_is_not_named_after_the_hosts_old_one(
    number: int, backend: Backend
) -> None:
    inner = PLACES["c"]
    commands = f"mount -t tmpfs -o size=64k none {inner}; truncate -s {SIZE} {inner}/file; "
    commands += f"dd if=/dev/zero of={inner}/filler bs=4k 2>/dev/null; stat -c %d {inner}; read -r line; "
    commands += f"{VICTIM} store {inner}/file {SIZE} 4096; echo $?; read -r line"
    with Session(Options(backend)) as session, cgroup(f"numbers-{backend}") as group:
        stage = Stage(session)
        refuse(stage)
        session.snapshot()
        run("umount", str(PLACES["full"]))
        shell = subprocess.Popen(
            inside(group, "unshare", "-m", "sh", "-c", commands),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert shell.stdout is not None and shell.stdin is not None
        assert int(shell.stdout.readline()) == number  # minor numbers below 256 are the same in both encodings
        shell.stdin.write("\n\n")
        shell.stdin.flush()
        pid, _, _ = shell.stdout.readline().partition(" ")
        met = stage.end_of(int(pid))
        shell.communicate("\n", timeout=300)
        final = session.finish()
    (failure,) = met.failures
    assert (failure.fstype, failure.mountpoint, failure.verdict.kind) == ("tmpfs", "", Class.TMPFS_FULL)
    assert met.explained.state.mountpoint == str(inner)
    diagnosis = met.explained.diagnosis
    assert str(PLACES["full"]) not in f"{diagnosis.remedy}{diagnosis.run}{diagnosis.check}"
    assert diagnosis.run == f"nsenter -t {shell.pid} -m mount -o remount,size=2m {inner}"
    assert failures(final) == {**OLD, ("tmpfs", "", Class.TMPFS_FULL, "ENOSPC"): 1}


def test_a_call_in_flight_is_on_the_filesystem_that_has_the_number_now(number: int, backend: Backend) -> None:
    with Session(Options(backend, waits=True)) as session:
        refuse(Stage(session))
        session.snapshot()
        run("umount", str(PLACES["full"]))
        assert btrfs(PLACES["b"]) == number
        with Waiter(PLACES["b"] / "file", FIRST) as waiter:
            with frozen(PLACES["b"]):
                waiter.store(0)
                waiter.blocked()
                (call,) = session.in_flight()
            waiter.took()
            assert (call.pid, call.dev, call.fstype, call.mountpoint) == (waiter.pid, number, "btrfs", str(PLACES["b"]))
            assert call.file == str(PLACES["b"] / "file")
        assert failures(session.finish()) == OLD


@pytest.mark.native
def test_tracepoints_tell_filesystems_apart_once_they_refuse(number: int) -> None:
    with Session(Options(Backend.TRACEPOINT)) as session:
        stage = Stage(session)
        refuse(stage)
        for name, times in (("c", 3), ("d", 2)):
            run("umount", str(PLACES["full" if name == "c" else "c"]))
            assert full_tmpfs(PLACES[name]) == number
            refuse(stage, times, name)
        final = session.finish()
    kind = Class.TMPFS_FULL
    assert failures(final) == {
        **OLD, ("tmpfs", str(PLACES["c"]), kind, "ENOSPC"): 3, ("tmpfs", str(PLACES["d"]), kind, "ENOSPC"): 2,
    }  # fmt: skip


def test_a_filter_by_mount_ends_with_the_filesystem(number: int, backend: Backend) -> None:
    run("umount", str(PLACES["full"]))
    assert btrfs(PLACES["b"]) == number
    with Session(Options(backend, Filters(mounts=(str(PLACES["b"]),)))) as session:
        workload("first-write", PLACES["b"] / "file", FIRST)
        run("umount", str(PLACES["b"]))
        assert btrfs(PLACES["c"]) == number
        workload("first-write", PLACES["c"] / "file", SECOND)
        final = session.finish()
    assert calls(final).total() == FIRST
