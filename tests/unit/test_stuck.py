"""Calls that are stuck, by the stacks of made-up tasks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tracer.export.json.records import stuck_dict
from tracer.host.mounts import Mounts
from tracer.host.peers import FuseDaemon
from tracer.host.stacks import Sleeper, kernel_stack, sleepers
from tracer.latency.stuck import StuckCall, StuckCalls, hooked_calls
from tracer.model.calls import Filesystem
from tracer.model.freezes import Freeze
from tracer.model.waits import InFlight, Wait
from tracer.probes.wait_functions import reason_of
from tracer.ui.stuck import StuckView

STACK = """\
[<0>] percpu_rwsem_wait+0x116/0x140
[<0>] ext4_page_mkwrite+0x4d0/0x5a0 [ext4]
[<0>] do_page_mkwrite+0x4d/0xb0
"""
FUNCTIONS = ("percpu_rwsem_wait", "ext4_page_mkwrite", "do_page_mkwrite")


def task(proc: Path, pid: int, tid: int, stack: str, comm: str = "java") -> None:
    place = proc / str(pid) / "task" / str(tid)
    place.mkdir(parents=True)
    (place / "stack").write_text(stack)
    (place / "comm").write_text(f"{comm}\n")


def test_sleepers_are_the_tasks_in_a_fault_and_no_others(tmp_path: Path) -> None:
    task(tmp_path, 10, 10, "[<0>] do_epoll_wait+0x1/0x2\n")
    task(tmp_path, 10, 11, STACK)
    task(tmp_path, 12, 12, "[<0>] balance_dirty_pages+0x1/0x2\n[<0>] fault_dirty_shared_page+0x1/0x2\n")
    task(tmp_path, 13, 13, "[<0>] balance_dirty_pages+0x1/0x2\n[<0>] generic_perform_write+0x1/0x2\n")
    (tmp_path / "self").mkdir()
    asleep, refused = sleepers(tmp_path)
    found = {one.tid: one for one in asleep}
    assert refused == 0
    assert set(found) == {11, 12}
    assert found[11] == Sleeper(10, 11, "java", FUNCTIONS)


def test_the_trampolines_of_hooks_are_no_functions(tmp_path: Path) -> None:
    first, rest = STACK.split("\n", 1)
    task(tmp_path, 1, 1, f"{first}\n[<0>] bpf_trampoline_6442542532+0x63/0xb5\n{first}\n{rest}")
    assert kernel_stack(1, 1, tmp_path) == FUNCTIONS


def test_a_stack_that_may_not_be_read_is_empty(tmp_path: Path) -> None:
    assert kernel_stack(1, 1, tmp_path) == ()


def test_the_innermost_function_with_a_name_is_the_reason() -> None:
    assert reason_of(FUNCTIONS) is Wait.FREEZE
    assert reason_of(("try_to_free_pages", "wait_transaction_locked")) is Wait.RECLAIM
    assert reason_of(("balance_dirty_pages", "fault_dirty_shared_page")) is Wait.THROTTLE
    assert reason_of(("schedule", "do_page_mkwrite")) is None


def call(at_least: bool) -> StuckCall:
    known = InFlight(
        1_200_000_000, 10, 11, "ja\x1bva", "ext4", "/srv", 8 << 20 | 1, 12, "/srv/a\nb", "ext4_page_mkwrite", 4096,
        Wait.FREEZE,
    )  # fmt: skip
    return StuckCall(known, at_least, "freeze", FUNCTIONS)


def test_the_view_has_a_line_for_each_call_and_function() -> None:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(StuckView([call(at_least=False), call(at_least=True)]))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in capture.get()
    assert len(lines) == 1 + 2 * (1 + 1 + 3)  # the call, who froze, its functions
    assert [line.strip() for line in lines[3:6]] == list(FUNCTIONS)
    assert lines[1].split()[:3] == ["1.20s", "10", "ja\\x1bva"]
    assert lines[6].split()[0] == ">1.20s"


def test_nothing_stuck_is_said() -> None:
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(StuckView([]))
    assert capture.get() == "nothing is stuck\n"


def test_json_says_what_is_not_known() -> None:
    record = stuck_dict(call(at_least=True))
    assert (record["age_is_at_least"], record["offset"], record["reason"]) == (True, None, "freeze")
    assert record["stack"] == list(FUNCTIONS)


class _Session:
    def __init__(self, *calls: InFlight) -> None:
        self.calls = calls

    def in_flight(self) -> list[InFlight]:
        return list(self.calls)

    def freezes(self) -> dict[Filesystem, Freeze]:
        """Return none: what is frozen was frozen before."""
        return {}


def test_what_waits_for_a_server_has_the_peer_of_its_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = (
        b"30 1 0:51 / /srv rw - nfs4 files:/export rw\n"
        b"31 1 0:52 / /home rw - fuse.sshfs who@where: rw\n"
        b"32 1 8:1 / /data rw - ext4 /dev/sda1 rw\n"
    )
    monkeypatch.setattr("tracer.latency.stuck.Mounts.read", lambda: Mounts.parse(mounts))
    monkeypatch.setattr("tracer.latency.stuck.fuse_daemons", lambda: [FuseDaemon(7, "sshfs", (), 52)])
    calls = [replace(call(False).call, pid=0, dev=dev) for dev in (51, 52, 8 << 20 | 1, 99)]
    found = hooked_calls(_Session(*calls), 0)  # type: ignore[arg-type]
    assert [one.peer for one in found] == ["files:/export", "sshfs[7]", "", ""]
    assert [stuck_dict(one)["peer"] for one in found] == ["files:/export", "sshfs[7]", None, None]


def test_who_is_throttled_is_shown_only_where_nothing_is_hooked(monkeypatch: pytest.MonkeyPatch) -> None:
    throttled = Sleeper(10, 10, "dd", ("balance_dirty_pages", "fault_dirty_shared_page"))
    waiting = Sleeper(11, 11, "java", FUNCTIONS)
    monkeypatch.setattr("tracer.latency.stuck.sleepers", lambda: ([throttled, waiting], 0))
    assert [one.call.pid for one in StuckCalls().look(None, 0)] == [10, 11]
    assert [one.call.pid for one in StuckCalls().look(_Session(), 0)] == [11]  # type: ignore[arg-type]


def test_the_view_names_peers_where_there_are_any() -> None:
    console = Console(width=160, color_system=None)
    with console.capture() as capture:
        console.print(StuckView([replace(call(at_least=False), peer="files:/export"), call(at_least=True)]))
    header, first = capture.get().splitlines()[:2]
    assert header.split()[-1] == "PEER"
    assert first.split()[-1] == "files:/export"
