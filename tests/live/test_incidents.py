"""Floods of short-lived victims, and signals that are raised again: one report, and exact counts."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.live.guest import command
from tests.live.refusals import VICTIM

pytestmark = pytest.mark.native
WORKERS = 101
CUT = """
import ctypes, faulthandler, mmap, os, sys, threading
path, workers = sys.argv[1], int(sys.argv[2])
with open(path, "wb+") as file:
    file.truncate(8192)
    mapped = mmap.mmap(file.fileno(), 0)
    file.truncate(0)
for _ in range(workers):
    if not os.fork():
        mapped[4097]
for _ in range(workers):
    os.wait()
def touch():
    ctypes.CDLL(None).prctl(15, b"incident-worker")
    mapped[4097]
if not workers:
    faulthandler.enable()
    thread = threading.Thread(target=touch)
    thread.start()
    thread.join()
"""


#: Of the victims alone: others may die on this machine meanwhile.
NAMES = ("incident-python", "incident-worker", "incident-victim", "timeout")


def watched(*arguments: str | Path, json_lines: bool = False) -> list[str]:
    """What sigbus says while a command runs."""
    options = ["--backend", "tracepoint", *(["--json"] if json_lines else [])]
    options += [word for name in NAMES for word in ("--comm", name)]
    done = subprocess.run(
        command("sigbus", *options, "--", *map(str, arguments)), capture_output=True, text=True, check=False
    )
    assert "\nlost: 0  " in f"\n{done.stderr}", done.stderr
    return done.stdout.splitlines()


def named(tmp_path: Path, program: str, name: str) -> Path:
    """A program under a name of its own."""
    (link := tmp_path / name).unlink(missing_ok=True)
    link.symlink_to(program)
    return link


def script(tmp_path: Path, workers: int) -> list[str]:
    """The command that lets so many workers die of a file that was cut, or itself."""
    python = named(tmp_path, "/usr/bin/python3", NAMES[0])
    return [str(python), "-c", CUT, str(tmp_path / "cut"), str(workers)]


def test_workers_that_die_on_one_file_are_one_report_and_a_count(tmp_path: Path) -> None:
    lines = watched(*script(tmp_path, WORKERS))
    reports = [line for line in lines if line.startswith("SIGBUS ")]
    counts = [line for line in lines if " more like it in " in line]
    assert len(reports) == 1
    assert sum(int(line.split(" more like it")[0].split()[-1]) for line in counts) == WORKERS - 1
    assert f" {WORKERS} so far: {WORKERS} processes, the last incident-python[" in counts[-1]


MEMFD = """
import mmap, os
memory = os.memfd_create("wl_shm-buffer")
os.ftruncate(memory, 8192)
mapped = mmap.mmap(memory, 8192)
os.ftruncate(memory, 4096)
mapped[4097] = 1
"""


def test_memory_that_is_no_file_of_a_mounted_filesystem_has_its_name(tmp_path: Path) -> None:
    """And no command that could not work."""
    python = named(tmp_path, "/usr/bin/python3", NAMES[0])
    (found,) = map(json.loads, watched(python, "-c", MEMFD, json_lines=True))
    assert (found["file"], found["deleted"], found["check"]) == ("/memfd:wl_shm-buffer", True, "")
    assert (found["class"], found["size"], found["offset"]) == ("beyond_end", 4096, 4096)
    text = watched(python, "-c", MEMFD)
    assert any(line.startswith("  file    /memfd:wl_shm-buffer (deleted), offset 0x1000") for line in text)
    assert any(line.endswith("; tmpfs on the kernel's own mount") for line in text)


def test_an_anonymous_huge_page_has_its_name(tmp_path: Path) -> None:
    lines = watched(named(tmp_path, str(VICTIM), NAMES[2]), "hugetlb", json_lines=True)
    (found,) = (json.loads(line) for line in lines if line.startswith("{"))
    assert (found["file"], found["deleted"], found["class"]) == ("/anon_hugepage", True, "hugetlb_exhausted")


def test_a_signal_that_is_raised_again_is_no_incident_of_its_own(tmp_path: Path) -> None:
    """By the process that has a handler, and by timeout(1), which ends as its child did."""
    found = [json.loads(line) for line in watched("timeout", "60", *script(tmp_path, 0), json_lines=True)]
    first, itself, parent = (one for one in found if one["kind"] == "failure")
    assert (first["class"], first["raised_again"], first["write"]) == ("beyond_end", None, False)
    for one, of_child in ((itself, False), (parent, True)):
        assert (one["class"], "path" in one, "write" in one) == ("raised_again", False, False)
        assert one["raised_again"] | {"after_ns": 0} == {
            "first_time_ns": first["time_ns"], "first_pid": first["pid"], "of_child": of_child, "after_ns": 0
        }  # fmt: skip
    assert (itself["process"], parent["process"], itself["pid"]) == ("incident-python", "timeout", first["pid"])
    assert (first["process"], first["comm"]) == ("incident-python", "incident-worker")
    assert first["tid"] != first["pid"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("timeout", "60", "{script}"), {"beyond_end": 1, "raised_again": 2}),
        (("/usr/bin/python3", "-c", "import os; os.kill(os.getpid(), 7)"), {"sent": 1}),
        (("timeout", "60", "/usr/bin/python3", "-c", "import os; os.kill(os.getpid(), 7)"), {"sent": 2}),
    ],
    ids=["raised again", "sent", "sent twice"],
)
def test_what_is_raised_again_is_counted_apart_from_what_is_sent(
    tmp_path: Path, arguments: tuple[str, ...], expected: dict[str, int]
) -> None:
    filled = [
        word for argument in arguments for word in (script(tmp_path, 0) if argument == "{script}" else [argument])
    ]
    done = subprocess.run(
        command("count", "--backend", "tracepoint", "--json", "--", *filled),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    failures = json.loads(done.stdout.splitlines()[-1])["failure_counts"]
    assert {one["class"]: one["count"] for one in failures} == expected, done
