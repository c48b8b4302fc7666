"""Where ``make install`` cannot go on it says in one sentence why, in another what to do, and has changed nothing."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.install.machine import OFFLINE, PREFIX, Machine

#: Runs the machine's Python as if it were another one.
_OLD_PYTHON = """\
#!/bin/sh
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/usr/local/old exec /usr/bin/python3 "$@"
"""
_OLD_VERSION = "import sys\nsys.version_info = (3, 9, 2, 'final', 0)\n"
_NO_APT = "rm /usr/bin/apt-get /usr/bin/dpkg-query"
_NO_BCC = "cp -a /usr/lib/python3/dist-packages/bcc /usr/lib/bcc.aside; dpkg -r python3-bpfcc 2>&1"
#: An apt-get that has what is missing, and notes what it was asked for.
_APT = """\
#!/bin/sh
echo "$*" >>/run/apt.calls
case $2$3 in -yinstall) mv /usr/lib/bcc.aside /usr/lib/python3/dist-packages/bcc ;; esac
"""
#: One that says how much there is to get, and gets nothing.
_SIZED = """\
#!/bin/sh
echo "$*" >>/run/apt.calls
echo 'Need to get 61.5 MB of archives.'
echo 'After this operation, 402 MB of additional disk space will be used.'
echo 'E: Unable to fetch some archives' >&2
exit 100
"""
#: The checkout that is tested may have one, which would do.
_NO_VENV = "VENV=/run/venv"
_LOWDOWN = "/usr/bin/lowdown.aside /usr/bin/lowdown"
#: Ends an install while pip, whose log is a FIFO without a reader, waits.
_INTERRUPT = f"""\
mkfifo /run/log
PIP_LOG=/run/log python3 -B /mnt/now/packaging/install.py install {PREFIX} 2>/run/said &
until [ "$(ls -d {PREFIX}/venv.*/bin/pip | wc -l)" = 2 ]; do sleep 0.1; done
kill $!
wait $! || echo $?
cat /run/said
"""


def refused(done: subprocess.CompletedProcess[str], problem: str, cure: str) -> None:
    """Assert that it ended with these, and nothing rawer."""
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if not re.match(r"make(\[1\])?: \*\*\*", line)]
    assert len(said) in (2, 3), done.stderr
    assert said[0].startswith(f"mkwrite: {problem}"), done.stderr
    assert cure in "\n".join(said[1:]), done.stderr
    assert "Errno" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(params=["bare", "installed"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """A machine without mkwrite, and one with it."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Machine)
    return found.clone()


@pytest.mark.parametrize("what", ["install", "uninstall"])
def test_a_user_is_told_to_be_root(machine: Machine, what: str) -> None:
    before = machine.tree()
    refused(machine.make(what, *OFFLINE, user="nobody"), "this needs root", f"sudo make {what}")
    assert machine.tree() == before


def test_offline_the_former_install_stays_and_wheels_are_the_way(machine: Machine) -> None:
    before = machine.tree()
    refused(machine.make("install"), "pip could not get what mkwrite is made of: ", "PIP_NO_INDEX=1 PIP_FIND_LINKS=DIR")
    assert machine.tree() == before


def test_an_install_that_is_interrupted_leaves_the_former_one(installed: Machine) -> None:
    machine = installed.clone()
    before = machine.tree()
    assert machine.shell(_INTERRUPT) == "130\nmkwrite: interrupted.\n"
    assert machine.tree() == before


def test_an_old_python_is_named_with_what_is_needed(installed: Machine) -> None:
    machine = installed.clone()
    machine.shell("mkdir /usr/local/old")
    machine.write("/usr/local/old/sitecustomize.py", _OLD_VERSION)
    machine.write("/usr/local/bin/python3.9", _OLD_PYTHON)
    machine.shell("chmod 755 /usr/local/bin/python3.9")
    before = machine.tree()
    done = machine.make("install", *OFFLINE, "PYTHON=python3.9")
    refused(done, "python3.9 is not Python 3.11 or newer", "PYTHON=PATH")
    assert machine.tree() == before


def test_a_python_that_is_not_there_is_named(installed: Machine) -> None:
    machine = installed.clone()
    refused(machine.make("install", "PYTHON=python4"), "python4 is not Python 3.11 or newer, but: ", "PYTHON=PATH")


def test_without_apt_and_bcc_the_distributions_own_command_is_named(installed: Machine) -> None:
    machine = installed.clone()
    machine.shell(f"{_NO_BCC}; {_NO_APT}; rm /etc/os-release; echo 'ID=fedora' >/etc/os-release")
    before = machine.tree()
    refused(machine.make("install", *OFFLINE), "/usr/bin/python3 lacks BCC, and", "dnf install python3-bcc")
    assert machine.tree() == before


def test_offline_with_apt_the_package_that_is_missing_is_named(installed: Machine) -> None:
    machine = installed.clone()
    machine.shell(_NO_BCC)
    before = machine.tree()
    done = machine.make("install", *OFFLINE)
    refused(done, "apt-get could not install python3-bpfcc python3-venv: ", "is this machine online?")
    after = machine.tree()
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert all(path.startswith(("/var/lib/apt", "/var/cache/apt", "/var/log/apt")) for path in changed), changed


def test_what_apt_installs_is_what_is_missing(bare: Machine) -> None:
    machine = bare.clone()
    machine.shell(_NO_BCC)
    machine.write("/usr/bin/apt-get", _APT)
    # The wheels are missing, too, so that it ends there.
    refused(machine.make("install"), "pip could not get", "make install")
    assert machine.shell("cat /run/apt.calls").splitlines() == [
        "-q update", "--assume-no install --no-install-recommends python3-bpfcc python3-venv",
        "-q -y install --no-install-recommends python3-bpfcc python3-venv",
    ]  # fmt: skip


@pytest.mark.parametrize("what", ["install", "uninstall"])
def test_a_directory_that_others_use_is_left_alone(bare: Machine, what: str) -> None:
    machine = bare.clone()
    before = machine.tree()
    done = machine.make(what, *OFFLINE, "PREFIX=/usr/local")
    refused(done, "/usr/local holds other things", f"{what} PREFIX={PREFIX}")
    assert machine.tree() == before


def test_without_apt_what_is_there_suffices(bare: Machine) -> None:
    machine = bare.clone()
    machine.shell(_NO_APT)
    # The wheels are missing, so that it ends behind where packages would be got.
    refused(machine.make("install"), "pip could not get", "make install")


def test_without_what_makes_man_pages_it_is_installed_and_that_is_said(bare: Machine) -> None:
    machine = bare.clone()
    machine.shell(f"rm /usr/bin/lowdown; {_NO_APT}")
    done = machine.make("install", *OFFLINE)
    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "mkwrite: no man pages, since lowdown, which makes them, is missing.\n"
        "Install it, then run make install again; mkwrite help COMMAND does without.\n"
    )
    assert machine.shell("mkwrite help top | head -n 1") == "Usage: mkwrite top [OPTIONS]\n"


def test_apt_gets_what_makes_man_pages(bare: Machine) -> None:
    machine = bare.clone()
    machine.shell("mv /usr/bin/lowdown /usr/bin/lowdown.aside")
    machine.write("/usr/bin/apt-get", _APT.replace("/usr/lib/bcc.aside /usr/lib/python3/dist-packages/bcc", _LOWDOWN))
    # The wheels are missing, so that it ends there.
    refused(machine.make("install"), "pip could not get", "make install")
    assert machine.shell("cat /run/apt.calls").splitlines() == [
        "-q update", "--assume-no install --no-install-recommends lowdown",
        "-q -y install --no-install-recommends lowdown",
    ]  # fmt: skip


def test_the_demonstration_asks_for_root_first(bare: Machine) -> None:
    machine = bare.clone()
    before = machine.tree()
    refused(machine.make("demo", user="nobody"), "make demo needs root", "sudo make demo")
    assert machine.tree() == before


def test_the_demonstration_names_where_it_runs_to_a_machine_without_apt(bare: Machine) -> None:
    machine = bare.clone()
    machine.shell(_NO_APT)
    refused(machine.make("demo", _NO_VENV), "make demo gets programs by apt, and this machine has none", "Debian 12")


def test_the_demonstration_gets_no_more_than_a_guest_and_filesystems_need(bare: Machine) -> None:
    machine = bare.clone()
    machine.write("/usr/bin/apt-get", _SIZED)
    done = machine.make("demo", _NO_VENV)
    refused(done, "apt-get could not install btrfs-progs busybox-static kmod qemu-system-x86 ", "online?")
    assert "Installing packages: btrfs-progs" in done.stdout
    assert "(61.5 MB to fetch, 402 MB on the disk)" in done.stdout
    asked = machine.shell("cat /run/apt.calls").splitlines()[-1].split()
    assert asked[:4] == ["-q", "-y", "install", "--no-install-recommends"]
    assert set(asked[4:]) == {"btrfs-progs", "busybox-static", "kmod", "qemu-system-x86", "xfsprogs", "zstd"}


def test_the_demonstration_names_an_old_python(bare: Machine) -> None:
    machine = bare.clone()
    done = machine.make("demo", _NO_VENV, "PYTHON=python4")
    refused(done, "python4 is not Python 3.11 or newer, but: ", "PYTHON=PATH")
