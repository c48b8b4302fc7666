"""Return probes are told apart by the pid namespace of their maker, too: tracefs is one for all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.probes import attach
from tracer.probes.attach import ReturnProbes

#: No process has it: beyond the kernel's greatest (PID_MAX_LIMIT).
DEAD = 1 << 23


@pytest.fixture
def tracefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "kprobe_events").write_text("")
    monkeypatch.setattr(attach, "_TRACEFS", (tmp_path,))
    return tmp_path


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(attach.janitor, "sweep", lambda events, group: found.append(group))
    return found


def test_two_tracers_of_one_pid_in_two_namespaces_have_two_groups(
    tracefs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach.os, "getpid", lambda: 1)
    groups = set()
    for namespace in (0xF0000001, 0xF0000002):
        monkeypatch.setattr(attach, "_pid_namespace", lambda namespace=namespace: namespace)
        monkeypatch.setattr(attach, "_numbers", iter([0]))
        groups.add(ReturnProbes()._event("do_page_mkwrite"))
    assert len(groups) == 2


def test_only_dead_tracers_of_our_namespace_are_swept(tracefs: Path, swept: list[str]) -> None:
    ours = attach._pid_namespace()
    dead, living = f"mkwrite_{ours:x}_{DEAD:x}_0", f"mkwrite_{ours:x}_{os.getpid():x}_9"
    others, former = f"mkwrite_{ours + 1:x}_{DEAD:x}_0", f"mkwrite_{DEAD}_0"
    lines = (f"r4096:{group}/do_page_mkwrite_x do_page_mkwrite\n" for group in (dead, living, others, former))
    (tracefs / "kprobe_events").write_text("".join(lines))
    ReturnProbes()
    assert swept == [dead]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_first_process_of_two_namespaces_names_its_probes_differently() -> None:
    script = "from tracer.probes import attach; print(attach._pid_namespace())"
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", script]
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(first) != attach._pid_namespace()


def test_the_longest_name_of_an_event_is_one_for_the_kernel(tracefs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MAX_EVENT_NAME_LEN (kernel/trace/trace.h) is 64, its NUL included."""
    from tracer.probes import failures, wait_functions

    monkeypatch.setattr(attach.os, "getpid", lambda: 1 << 22)
    monkeypatch.setattr(attach, "_pid_namespace", lambda: 0xFFFFFFFF)
    monkeypatch.setattr(attach, "_numbers", iter([99]))
    probes = ReturnProbes()
    longest = max((*failures.functions(), *wait_functions.names()), key=len)
    assert all(len(part) < 64 for part in probes._event(longest).split("/"))
