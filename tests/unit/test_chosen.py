"""Which calls in flight filters let through: of what is not known, it is told that it is not."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tracer.errors import UsageError
from tracer.host.mounts import Mounts
from tracer.host.stacks import Sleeper
from tracer.latency.chosen import Chosen
from tracer.latency.stuck import StuckCall, StuckCalls
from tracer.model.options import Filters
from tracer.model.waits import InFlight, Wait

MOUNTS = Mounts.parse(
    b"30 1 8:1 / / rw - ext4 /dev/sda1 rw\n31 1 0:51 / /home rw - fuse.sshfs who@where: rw\n"
    b"32 1 0:23 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
)
HOOKED = StuckCall(
    InFlight(9, os.getpid(), 7, "java", "ext4", "/", 8 << 20 | 1, 12, "/a", "ext4_page_mkwrite", 0, Wait.FREEZE),
    at_least=False, reason="freeze", stack=(),
)  # fmt: skip
REMOTE = replace(HOOKED, call=replace(HOOKED.call, fstype="fuse.sshfs", dev=51, handler="fuse_page_mkwrite"))
#: That it is a call of ext4 is not known: its stack has a function, no file.
UNHOOKED = replace(HOOKED, at_least=True, call=replace(HOOKED.call, fstype="", mountpoint="", dev=0, comm="cat"))


@pytest.fixture(autouse=True)
def this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mounts, "read", lambda *_: MOUNTS)
    monkeypatch.setattr("tracer.latency.chosen.in_cgroup", lambda pid, cgroups: pid == 1)
    monkeypatch.setattr("tracer.latency.chosen.host_pids", lambda: True)
    monkeypatch.setattr("tracer.host.filters.host_pids", lambda: True)
    monkeypatch.setattr("tracer.latency.chosen.check", lambda *_: None)


@pytest.mark.parametrize(
    ("filters", "shown", "unknown"),
    [
        (Filters(), [HOOKED, REMOTE, UNHOOKED], 0),
        (Filters(fs=("ext4",)), [HOOKED], 1),
        (Filters(fs=("fuse",)), [REMOTE], 1),
        (Filters(fs=("fuse.sshfs", "ext4")), [HOOKED, REMOTE], 1),
        (Filters(mounts=("/home",)), [REMOTE], 1),
        (Filters(mounts=("/home",), comms=("java",)), [REMOTE], 0),
        (Filters(comms=("cat",)), [UNHOOKED], 0),
        (Filters(handlers=("ext4_page_mkwrite",)), [HOOKED, UNHOOKED], 0),
        (Filters(handlers=("fuse_page_mkwrite",), fs=("ext4",)), [], 0),
        (Filters(pids=(os.getpid(),)), [HOOKED, REMOTE, UNHOOKED], 0),
        (Filters(pids=(os.getppid(),)), [], 0),
        (Filters(cgroups=("/",)), [], 0),
    ],
    ids=repr,
)
def test_what_is_known_decides_and_what_is_not_is_told(filters: Filters, shown: list[StuckCall], unknown: int) -> None:
    chosen = Chosen(filters)
    assert chosen.unseen() == ()
    assert chosen.of([HOOKED, REMOTE, UNHOOKED]) == shown
    assert [text.split()[0] for text in chosen.unseen()] == [str(unknown)] * bool(unknown)


def test_a_throttled_task_has_no_handler_to_be_told_by() -> None:
    throttled = replace(UNHOOKED, call=replace(UNHOOKED.call, handler=""))
    chosen = Chosen(Filters(handlers=("ext4_page_mkwrite",)))
    assert chosen.of([throttled]) == []
    assert chosen.unseen()[0].startswith("1 call of which is not known")


def test_in_a_pid_namespace_no_cgroup_is_known_and_no_pid_can_be_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.latency.chosen.host_pids", lambda: False)
    monkeypatch.setattr("tracer.host.filters.host_pids", lambda: False)
    chosen = Chosen(Filters(cgroups=("/",)))
    assert chosen.of([HOOKED]) == [] and chosen.unseen()
    with pytest.raises(UsageError, match="pid namespace"):
        Chosen(Filters(pids=(1,)))


def test_what_is_asleep_without_a_hook_is_found_by_its_stack_and_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = Sleeper(1, 1, "java", ("percpu_rwsem_wait", "ext4_page_mkwrite", "do_page_mkwrite"))
    monkeypatch.setattr("tracer.latency.stuck.sleepers", lambda: ([asleep], 0))
    found = StuckCalls().look(None, 0)
    assert Chosen(Filters(handlers=("ext4_page_mkwrite",))).of(found) == found
    assert Chosen(Filters(handlers=("xfs_filemap_page_mkwrite",))).of(found) == []
