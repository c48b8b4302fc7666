"""BCC: where it is found, and what installs it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hosts import OS

from tracer.kernel.libraries import install_command, package_version, read_bcc


@pytest.mark.parametrize(
    ("os_release", "command"),
    [
        (OS.format("debian"), "apt-get install python3-bpfcc"),
        (OS.format("ubuntu") + "ID_LIKE=debian\n", "apt-get install python3-bpfcc"),
        (OS.format("linuxmint") + 'ID_LIKE="ubuntu debian"\n', "apt-get install python3-bpfcc"),
        (OS.format("fedora"), "dnf install python3-bcc"),
        (OS.format('"rocky"') + 'ID_LIKE="rhel centos fedora"\n', "dnf install python3-bcc"),
        (OS.format("arch"), "pacman -S python-bcc"),
        (OS.format('"opensuse-leap"') + 'ID_LIKE="suse opensuse"\n', "zypper install python3-bcc"),
        (OS.format("sles") + "ID_LIKE=suse\n", "zypper install python3-bcc"),
        (OS.format("alpine"), "apk add py3-bcc"),
        (OS.format("plan9"), ""),
        ("", ""),
    ],
)
def test_bcc_is_installed_with_the_distributions_own_command(os_release: str, command: str) -> None:
    assert install_command(os_release) == command


def bcc_package(directory: Path, version: str | None = "0.29.1") -> Path:
    directory.mkdir(parents=True)
    (directory / "libbcc.py").touch()
    if version:
        (directory / "version.py").write_text(f"__version__ = '{version}'\n")
    return directory


def test_another_package_called_bcc_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "bcc").mkdir()
    (tmp_path / "bcc/version.py").write_text("__version__ = '1.0'")
    assert package_version(tmp_path / "bcc") is None
    assert package_version(bcc_package(tmp_path / "real" / "bcc")) == "0.29.1"
    assert package_version(bcc_package(tmp_path / "old" / "bcc", None)) == "unknown"


@pytest.fixture
def no_own_bcc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.kernel.libraries._own", lambda: [])


@pytest.mark.usefixtures("no_own_bcc")
def test_bcc_of_the_distributions_python_is_used(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3.13").touch()
    (tmp_path / "usr/bin/python3").symlink_to("python3.13")
    bcc_package(tmp_path / "usr/lib/python3.13/site-packages/bcc")
    found = read_bcc("", tmp_path)
    assert (found.version, found.python, found.place) == ("0.29.1", tmp_path / "usr/bin/python3", None)


@pytest.mark.usefixtures("no_own_bcc")
def test_bcc_of_a_python_that_is_not_python3_is_only_mentioned(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3.13").touch()
    (tmp_path / "usr/bin/python3").symlink_to("python3.13")
    bcc_package(tmp_path / "usr/lib/python3.12/site-packages/bcc")
    found = read_bcc("", tmp_path)
    assert (found.version, found.python) == (None, None)
    assert found.place == tmp_path / "usr/lib/python3.12/site-packages"


@pytest.mark.usefixtures("no_own_bcc")
def test_no_bcc_at_all(tmp_path: Path) -> None:
    found = read_bcc("", tmp_path)
    assert (found.version, found.python, found.place) == (None, None, None)
