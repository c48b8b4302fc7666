"""A host of machines, and the machines that tests begin with."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.install.machine import LINK, OFFLINE, PREFIX, UNIT, Host, Machine, Tree, hosting
from tests.releases.roots import CHECKOUT, root, wheels

SUITE: Final = "bookworm"
#: Versions of the sources that are given out as older and as newer than the checkout.
OLDER, NEWER = "0.0.1", "99.0"
#: A module that only the older one has.
GONE: Final = "tracer/gone.py"
#: What ``make install`` did when it made PREFIX itself a venv.
_FORMER_INSTALL: Final = f"""\
cd /mnt/older
python3 -m venv --system-site-packages {PREFIX}
env {" ".join(OFFLINE)} {PREFIX}/bin/pip install -q .
ln -sf {PREFIX}/bin/mkwrite {LINK}
mkdir -p {Path(UNIT).parent}
echo '# older' >{UNIT}
"""


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The host of all machines."""
    base = root(SUITE)
    sources = {"now": CHECKOUT}
    for name, version in (("older", OLDER), ("newer", NEWER)):
        sources[name] = tmp_path_factory.mktemp("sources") / name
        shutil.copytree(CHECKOUT, sources[name], ignore=shutil.ignore_patterns(".*", "__pycache__", "tests", "build"))
        project = sources[name] / "pyproject.toml"
        project.write_text(
            re.sub(r'^version = ".*"$', f'version = "{version}"', project.read_text(), flags=re.MULTILINE)
        )
    (sources["older"] / GONE).write_text("")
    with hosting(wheels(base), sources) as made:
        yield made


@pytest.fixture(scope="session")
def bare(host: Host) -> Machine:
    """A machine without mkwrite; not to be changed."""
    machine = host.machine(root(SUITE))
    machine.shell(f"rm -rf {PREFIX}")  # of tests/releases
    return machine


@pytest.fixture(scope="session")
def before(bare: Machine) -> Tree:
    """The files of a machine without mkwrite."""
    return bare.tree()


@pytest.fixture(scope="session")
def installed(bare: Machine) -> Machine:
    """A machine with the checkout installed, by a root whose files nobody else may read; not to be changed."""
    machine = bare.clone()
    machine.start_systemd(active=False)
    done = machine.run("sh", "-c", f"umask 077; make -C /mnt/now install {' '.join(OFFLINE)}")
    assert done.returncode == 0, done.stdout + done.stderr
    return machine


@pytest.fixture(scope="session")
def former(bare: Machine) -> Machine:
    """A machine with an older version installed, as once was done; not to be changed."""
    machine = bare.clone()
    machine.shell(_FORMER_INSTALL)
    return machine
