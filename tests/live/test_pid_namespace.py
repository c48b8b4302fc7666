"""In a pid namespace of its own a tracer shows pids as the host's, and tells which they are in the namespace."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.live.guest import command, eventually
from tests.live.refusals import OFFSET, SIZE, VICTIM, Refusal, prepare

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")


def numbers(comm: str) -> list[list[int]]:
    """Of each process of this name, its pid in each pid namespace that it is in, ours first (NSpid of proc(5))."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):  # gone
            fields = dict(line.split(":", 1) for line in entry.read_text().splitlines())
            if fields["Name"].strip() == comm:
                found.append([int(number) for number in fields["NSpid"].split()])
    return found


@pytest.mark.usefixtures("clean_kernel")
def test_a_victim_is_named_by_both_its_pids() -> None:
    file = prepare(Refusal("ext4", "ext4", "ENOSPC", size=32), "-pidns")
    tracer = subprocess.Popen(
        [*NAMESPACE, *command("sigbus", "--json", "--", VICTIM, "store", str(file), str(SIZE), str(OFFSET))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert eventually(lambda: bool(numbers("victim")))  # it waits for a line
    ((host, inside),) = numbers("victim")
    out, said = tracer.communicate("\n", timeout=120)
    assert tracer.returncode == 128 + 7, said
    reports = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    (found,) = (report for report in reports if report["file"] == str(file))
    assert (found["pid"], found["namespace_pid"]) == (host, inside)
    assert (found["comm"], found["errno"]) == ("victim", "ENOSPC")
    # What only /proc tells is the victim's own, found by the pid that the tracer's namespace knows it by.
    assert found["host"]["mountpoint"] == str(file.parent)


def test_a_pid_of_the_namespace_is_not_taken_for_the_hosts() -> None:
    """Process 1 is itself in there, and on the host somebody else."""
    done = subprocess.run(
        [*NAMESPACE, *command("count", "--pid", "1", "-d", "1")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "--pid means the host's pids" in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.nightly
def test_doctor_says_whose_pids_are_shown() -> None:
    done = subprocess.run([*NAMESPACE, *command("doctor", "--json")], capture_output=True, text=True, check=False)
    rows = {row["id"]: row for row in json.loads(done.stdout)["rows"]}
    assert (done.returncode, rows["pid-namespace"]["state"]) == (0, "warning")
    assert "as the host sees them" in rows["pid-namespace"]["cost"]
