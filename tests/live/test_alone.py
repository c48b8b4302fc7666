"""What is counted with a command is what it and its children do, and nothing of the host around."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.live.guest import command
from tracer.host.cgroups import Cgroups
from tracer.host.mounts import Mounts

pytestmark = [pytest.mark.native, pytest.mark.newest]

DIES = 'sh -c "kill -BUS \\$\\$"'
#: Three processes die of SIGBUS: a child, a grandchild that is on its own, and, once others have died, another child.
COMMAND = f"{DIES}; (setsid sh -c '{DIES}; :') ; echo begun; read -r _; {DIES}; exit 7"
INSIDE, OUTSIDE = 3, 5


@pytest.mark.parametrize(("options", "wanted"), [([], INSIDE), (["--all"], INSIDE + OUTSIDE)], ids=["alone", "all"])
def test_a_command_and_its_children_are_counted(tmp_path: Path, options: list[str], wanted: int) -> None:
    out = tmp_path / "counts"
    counting = command(
        "count", "--json", "-o", str(out), "--backend", "tracepoint", *options, "--", "sh", "-c", COMMAND
    )
    with subprocess.Popen(counting, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        for _ in range(OUTSIDE):
            subprocess.run(["sh", "-c", "kill -BUS $$"], check=False)
        process.communicate("\n", timeout=120)
        assert process.returncode == 7
    found = json.loads(out.read_text())
    assert (found["tracepoints"]["sigbus"], found["watched"]) == (wanted, "host" if options else "command")


def test_a_process_that_stays_goes_on_and_the_cgroup_goes() -> None:
    script = "sleep 1000 >/dev/null 2>&1 & echo $!; cat /proc/self/cgroup"
    counting = command("count", "--json", "-o", "/dev/null", "--backend", "tracepoint", "--", "sh", "-c", script)
    number, *lines = subprocess.run(counting, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    try:
        (inside,) = (line.removeprefix("0::") for line in lines if line.startswith("0::"))
        ours = Path("/proc/self/cgroup").read_text()
        assert Path(f"/proc/{number}/cgroup").read_text() == ours
        root = Cgroups(Mounts.read()).root
        assert root is not None and not Path(f"{root}{inside}").exists()
        assert inside.rpartition("/")[2].startswith("mkwrite-")
    finally:
        subprocess.run(["kill", number], check=True)
