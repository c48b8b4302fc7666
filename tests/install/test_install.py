"""What an install makes, an upgrade replaces, and an uninstall leaves."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

from tests.install.conftest import GONE, NEWER, OLDER
from tests.install.machine import LINK, MANUAL, OFFLINE, PREFIX, UNIT, Machine, Tree
from tests.releases.roots import CHECKOUT
from tracer.cli.main import COMMANDS

VERSION = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["version"]
#: What the tests themselves put on a machine.
FAKE = "/usr/bin/systemctl"
COMPLETIONS = (
    "/usr/local/share/bash-completion/completions/mkwrite",
    "/usr/local/share/zsh/site-functions/_mkwrite",
    "/etc/fish/completions/mkwrite.fish",
)
MANUALS = sorted(
    f"{MANUAL}/{name}.1"
    for name in ("mkwrite", *(f"mkwrite-{command}" for command in COMMANDS if command not in ("completion", "help")))
)
#: What mandoc says of all that the converter makes.
HARMLESS = ("skipping paragraph macro: PP after", 'missing date, using ""')
#: Prints what a tab behind this command line offers in a shell that has loaded no completion yet.
_TAB = """\
. /usr/share/bash-completion/bash_completion
_completion_loader mkwrite
COMP_WORDS=(mkwrite top --cum) COMP_CWORD=2
_mkwrite_completion mkwrite
printf '%s\\n' "${COMPREPLY[@]}"
"""


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
    shared = {path for path in new if path.startswith(("/usr/local/share/", "/etc/"))}
    assert new - shared == {PREFIX, f"{PREFIX}/{venv}", LINK, UNIT, units, units.rpartition("/")[0]}
    assert {path for path in shared if after[path][3:]} == {*COMPLETIONS, *MANUALS}
    assert installed.shell(f"readlink {LINK}") == f"{PREFIX}/{venv}/bin/mkwrite\n"
    assert installed.shell(f"cat {UNIT}") == (CHECKOUT / "packaging" / "mkwrite-exporter.service").read_text()


def test_each_command_has_a_man_page_without_a_flaw(installed: Machine) -> None:
    said = installed.run("mandoc", "-T", "lint", "-W", "warning", *MANUALS).stdout.splitlines()
    assert [line for line in said if not line.partition("WARNING: ")[2].startswith(HARMLESS)] == []
    names = installed.shell(f"cd {MANUAL} && grep -ohE '^mkwrite[a-z-]* - [a-z]' *")
    assert [f"{MANUAL}/{line.split()[0]}.1" for line in names.splitlines()] == MANUALS
    shown = re.sub(".\b", "", installed.shell(f"mandoc -T utf8 {MANUAL}/mkwrite-top.1"))
    assert [line for line in shown.splitlines() if line[:1].isalpha()][1:4] == ["Name", "Synopsis", "Description"]
    assert re.search(r"--sort COLUMN +│ *calls \(default\), p50", shown)
    assert f"mkwrite {VERSION}" in shown


def test_tab_completion_is_loaded_by_what_was_installed_last(installed: Machine) -> None:
    machine = installed.clone()
    assert machine.make("install", *OFFLINE, source="newer").returncode == 0
    machine.write("/run/tab", _TAB)
    assert machine.run("bash", "/run/tab").stdout == "--cumulative\n"
    assert f"_MKWRITE_COMPLETE=zsh_complete {LINK.rpartition('/')[2]}" in machine.shell(f"cat {COMPLETIONS[1]}")
    assert "_MKWRITE_COMPLETE=fish_complete" in machine.shell(f"cat {COMPLETIONS[2]}")


def test_a_page_that_is_no_more_goes_with_an_upgrade(installed: Machine) -> None:
    machine = installed.clone()
    gone = f"{MANUAL}/mkwrite-gone.1"
    machine.shell(f"ln -s {PREFIX}/venv.former/share/man/man1/mkwrite-gone.1 {gone}; touch {gone}x")
    assert machine.make("install", *OFFLINE, source="newer").returncode == 0
    assert {path for path in machine.tree() if "mkwrite-gone" in path} == {f"{gone}x"}


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
