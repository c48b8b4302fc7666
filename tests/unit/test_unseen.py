"""What could not be looked at is never told as nothing: in words, in JSON, by an exit code of its own."""

from __future__ import annotations

import ctypes as ct
import errno
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from shown import render

from tracer.cli.main import cli
from tracer.errors import Exit
from tracer.export.http.answers import exposition
from tracer.export.prometheus.risk_collector import RiskCollector
from tracer.host import thin
from tracer.host.mapped import Scan
from tracer.host.mappings import MappingReader
from tracer.host.mounts import Mounts
from tracer.host.quota import USER, Quotas
from tracer.host.stacks import sleepers
from tracer.latency.stuck import StuckCalls
from tracer.mappings.mounted import filesystems, unknown_peers
from tracer.mappings.survey import Survey
from tracer.ui.risk import RiskView

pytestmark = pytest.mark.usefixtures("fake_sessions")


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes whose mappings may not be read, as a user has them around."""

    def refuse(reader: MappingReader, pid: int) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(MappingReader, "read", refuse)


@pytest.mark.usefixtures("strangers")
@pytest.mark.parametrize("command", ["risk", "risk --above 80", "maps"])
def test_processes_that_may_not_be_looked_at_are_named_and_no_success(command: str) -> None:
    own = ["--pid", str(os.getpid())]
    name = f"{Path('/proc/self/comm').read_text().strip()}[{os.getpid()}]"
    text = CliRunner().invoke(cli, [*command.split(), *own])
    assert text.exit_code == Exit.NOT_ALL_SEEN
    assert f"not seen: 1 process, whose mappings may not be read: {name}; " in text.stdout
    assert "Nothing is mapped" not in text.stdout
    data = CliRunner().invoke(cli, [*command.split(), *own, "--json"])
    assert data.exit_code == Exit.NOT_ALL_SEEN
    (sentence,) = json.loads(data.stdout)["unseen"]
    assert name in sentence


def test_of_many_some_are_named_and_all_are_in_json() -> None:
    (sentence,) = Scan((), {}, {pid: "x" for pid in range(100, 120)}, 0).unseen
    assert "20 processes" in sentence and "x[107] and 12 more" in sentence and "x[108]" not in sentence


def test_what_was_not_seen_makes_no_room_for_all() -> None:
    assert render(RiskView(Survey(0, (), (), ())))[1].startswith("Nothing is mapped")
    assert render(RiskView(Survey(0, (), (), (), unseen=("a file.",))))[1:] == [
        "No limit was found for what could be looked at, which is not all.",
        "not seen: a file.",
    ]
    assert render(RiskView(Survey(0, (), (), (), skipped=1)))[1].startswith("No limit was found")


def test_the_metric_tells_that_a_look_was_not_complete() -> None:
    text = exposition(RiskCollector(lambda: Survey(0, (), (), (), unseen=("a.", "b.")))).decode()
    assert "mkwrite_risk_unseen 2.0" in text.splitlines()


def test_stuck_says_that_stacks_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.latency.stuck.readable", lambda: False)
    monkeypatch.setattr("tracer.latency.stuck.sleepers", lambda: ([], 7))
    text = CliRunner().invoke(cli, ["stuck", "--once", "-t", "1ms"])
    assert text.exit_code == Exit.NOT_ALL_SEEN
    assert "not seen: Calls that began before the hooks were there: kernel stacks take root" in text.stdout
    assert text.stdout.splitlines()[-1] == "nothing that could be looked at is stuck"
    data = CliRunner().invoke(cli, ["stuck", "--once", "-t", "1ms", "--json"])
    assert data.exit_code == Exit.NOT_ALL_SEEN
    found = json.loads(data.stdout)
    assert (found["stuck"], len(found["unseen"])) == ([], 1)


def test_stuck_that_saw_all_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.latency.stuck.readable", lambda: True)
    monkeypatch.setattr("tracer.latency.stuck.sleepers", lambda: ([], 0))
    monkeypatch.setattr("tracer.latency.stuck.concealed", lambda: "")
    done = CliRunner().invoke(cli, ["stuck", "--once", "-t", "1ms"])
    assert (done.exit_code, done.stdout) == (Exit.OK, "nothing is stuck\n")


def test_tasks_whose_stacks_may_not_be_read_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "7/task/7").mkdir(parents=True)
    monkeypatch.setattr("tracer.host.stacks._stack", lambda task: (task / "none").read_text())
    assert sleepers(tmp_path) == ([], 0)  # gone

    def refuse(task: Path) -> None:
        raise PermissionError

    monkeypatch.setattr("tracer.host.stacks._stack", refuse)
    assert sleepers(tmp_path) == ([], 1)


@pytest.mark.parametrize("others", ["Processes outside of this pid namespace: share it.", ""])
def test_stuck_says_that_proc_does_not_show_all(monkeypatch: pytest.MonkeyPatch, others: str) -> None:
    monkeypatch.setattr("tracer.latency.stuck.readable", lambda: True)
    monkeypatch.setattr("tracer.latency.stuck.concealed", lambda: others)
    assert StuckCalls().unseen(hooked=False) == (
        ("Calls: processes outside of this pid namespace: share it.",) if others else ()
    )


def test_a_quota_that_may_not_be_seen_is_known_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    quotas = Quotas(0, 1, "")
    quotas.refused = False

    class Refusing:
        def syscall(self, *_: object) -> int:
            ct.set_errno(errno.EPERM)
            return -1

        def quotactl(self, *_: object) -> int:
            ct.set_errno(errno.ENOENT)
            return -1

    monkeypatch.setattr(quotas, "_libc", Refusing())
    quotas.enforced = frozenset({USER})
    assert quotas.left(0, USER, 26) is None
    assert quotas.refused


def test_a_device_that_may_be_a_thin_volume_is_not_taken_for_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "254:1/dm").mkdir(parents=True)
    (tmp_path / "254:1/slaves/dm-0").mkdir(parents=True)
    (tmp_path / "254:1/slaves/dm-0/dev").write_text("254:0\n")
    (tmp_path / "254:0/dm").mkdir(parents=True)
    (tmp_path / "254:0/slaves").mkdir()
    monkeypatch.setattr(thin, "_DEVICES", tmp_path)
    monkeypatch.setattr(thin, "_PLACES", str(tmp_path))
    assert thin.pool_free(254 << 20) is None  # on top of no device of device-mapper: a linear volume, say
    with pytest.raises(OSError):
        thin.pool_free(254 << 20 | 1)


def test_a_daemon_that_may_not_be_seen_is_not_taken_for_none() -> None:
    mounts = Mounts.parse(b"31 1 0:52 / /home rw - fuse.sshfs who@where: rw\n")
    rows = filesystems(mounts, [], lambda name: True)
    assert unknown_peers(rows, lambda: 0) == ()
    (sentence,) = unknown_peers(rows, lambda: 3)
    assert sentence == "The daemons of /home: 3 processes may not be looked at; that takes CAP_SYS_PTRACE."
    local = filesystems(Mounts.parse(b"32 1 8:1 / /data rw - ext4 /dev/sda1 rw\n"), [], lambda name: True)
    assert unknown_peers(local, lambda: 3) == ()
