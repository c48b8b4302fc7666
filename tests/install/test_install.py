"""What an install makes, an upgrade replaces, and an uninstall leaves."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

from tests.install.conftest import GONE, NEWER, OLDER
from tests.install.machine import LINK, OFFLINE, PREFIX, UNIT, Machine, Tree
from tests.releases.roots import CHECKOUT

VERSION = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
#: What the tests themselves put on a machine.
FAKE = "/usr/bin/systemctl"


def venvs(machine: Machine) -> list[str]:
    """What is below the prefix."""
    return machine.shell(f"ls -A {PREFIX}").split()


def version(machine: Machine) -> str:
    """Of the command that runs."""
    return machine.shell("mkwrite --version").split()[1]


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_everybody_can_run_what_is_installed(installed: Machine, user: str) -> None:
    done = installed.run("mkwrite", "--version", user=user)
    assert (done.returncode, done.stdout) == (0, f"mkwrite {VERSION}\n"), done.stderr


def test_doctor_says_of_this_kernel_what_the_checkout_says_and_nothing_of_it_stays(
    installed: Machine, before: Tree
) -> None:
    here = subprocess.run(
        [sys.executable, "-m", "tracer", "doctor"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    machine = installed.clone()
    there = machine.run("mkwrite", "doctor")  # compiles, where this kernel lets it
    assert there.returncode == here.returncode, there.stdout + there.stderr
    assert "Traceback" not in there.stderr
    done = machine.make("uninstall")
    assert done.returncode == 0, done.stderr
    assert machine.systemctl_calls()[-2:] == ["disable -q --now mkwrite-exporter", "daemon-reload"]
    assert {path: what for path, what in machine.tree().items() if path != FAKE} == before


def test_an_install_adds_files_and_changes_none(installed: Machine, before: Tree) -> None:
    after = installed.tree()
    assert before.items() <= after.items()
    (venv,) = venvs(installed)
    new = {path for path in after.keys() - before.keys() - {FAKE} if not path.startswith(f"{PREFIX}/{venv}/")}
    units = UNIT.rpartition("/")[0]
    assert new == {PREFIX, f"{PREFIX}/{venv}", LINK, UNIT, units, units.rpartition("/")[0]}
    assert installed.shell(f"readlink {LINK}") == f"{PREFIX}/{venv}/bin/mkwrite\n"
    assert installed.shell(f"cat {UNIT}") == (CHECKOUT / "packaging" / "mkwrite-exporter.service").read_text()


def test_a_service_that_does_not_run_is_not_started(installed: Machine) -> None:
    assert installed.systemctl_calls() == ["daemon-reload", "is-active -q mkwrite-exporter"]


def test_uninstall_of_nothing_does_nothing(bare: Machine, before: Tree) -> None:
    machine = bare.clone()
    assert machine.make("uninstall").returncode == 0
    assert machine.tree() == before


def test_an_upgrade_of_what_was_installed_as_once_was_done_restarts_the_service(former: Machine, before: Tree) -> None:
    machine = former.clone()
    machine.start_systemd(active=True)
    assert version(machine) == OLDER
    assert machine.shell(f"find {PREFIX} -path '*/{GONE}'") != ""
    done = machine.make("install", *OFFLINE)
    assert done.returncode == 0, done.stderr
    assert version(machine) == VERSION
    assert machine.shell(f"find {PREFIX} -path '*/{GONE}'") == ""
    assert len(venvs(machine)) == 1
    # The unit is known before the restart, which finds the new version.
    assert machine.systemctl_calls() == [
        "daemon-reload", "is-active -q mkwrite-exporter", "restart mkwrite-exporter",
    ]  # fmt: skip
    assert machine.shell("cat /run/started") == f"mkwrite {VERSION}\n"
    assert machine.shell(f"head -n 1 {UNIT}") != "# older\n"
    assert machine.make("uninstall").returncode == 0
    assert {path: what for path, what in machine.tree().items() if path != FAKE} == before


def test_an_upgrade_replaces_the_venv_and_what_an_install_left_that_was_killed(installed: Machine) -> None:
    machine = installed.clone()
    machine.shell(f"mkdir -p {PREFIX}/venv.killed/bin")
    former = venvs(machine)
    done = machine.make("install", *OFFLINE, source="newer")
    assert done.returncode == 0, done.stderr
    assert version(machine) == NEWER
    assert len(venvs(machine)) == 1
    assert not {*venvs(machine)} & {*former}
    assert not any("restart" in call for call in machine.systemctl_calls())


def test_a_version_whose_service_does_not_start_is_taken_back(installed: Machine) -> None:
    machine = installed.clone()
    machine.start_systemd(active=True)
    machine.shell(f"echo 'mkwrite {NEWER}' >/run/refused; rm /run/systemctl.calls; echo '# former' >{UNIT}")
    was = machine.tree()
    done = machine.make("install", *OFFLINE, source="newer")
    assert done.returncode == 2, done.stdout
    assert "does not start with what was installed, so that the former install is back" in done.stderr
    assert machine.systemctl_calls() == [
        "daemon-reload", "is-active -q mkwrite-exporter", "restart mkwrite-exporter",
        "daemon-reload", "restart mkwrite-exporter",
    ]  # fmt: skip
    assert machine.shell("cat /run/started; ls /run/active") == f"mkwrite {VERSION}\n/run/active\n"
    # The unit is a new file with the former text.
    assert {path: what[:-1] for path, what in machine.tree().items()} == {path: what[:-1] for path, what in was.items()}
