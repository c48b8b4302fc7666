"""Obstacles that can be put in the way of a process on any kernel: each with its own message and exit code."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.guest import command

pytestmark = pytest.mark.native

#: Under a filter that answers bpf(2) with an errno: load [4] == 321? errno : allow (include/uapi/linux/seccomp.h).
FILTER = """
import ctypes, os, struct, sys
code = [(0x20, 0, 0, 0), (0x15, 0, 1, 321), (0x06, 0, 0, 0x50000 | int(sys.argv[1])), (0x06, 0, 0, 0x7FFF0000)]
program = b"".join(struct.pack("<HBBI", *each) for each in code)
kept = ctypes.create_string_buffer(program)
header = struct.pack("<H6xQ", len(code), ctypes.addressof(kept))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0, ctypes.get_errno()
os.execvp(sys.argv[2], sys.argv[2:])
"""


def failing(*wrapped: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command that fails, and says in two sentences why."""
    done = subprocess.run(wrapped, capture_output=True, text=True, check=False, env={**os.environ, **(env or {})})
    assert done.returncode, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    return done


def ids(*wrapped: str) -> tuple[int, set[str], dict[str, Any]]:
    """The exit code of ``mkwrite doctor --json`` behind a wrapper, the ids of its rows, and all that it says."""
    done = subprocess.run([*wrapped, *command("doctor", "--json")], capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)
    return done.returncode, {row["id"] for row in found["rows"]}, found


@pytest.mark.parametrize("number", [1, 38])
def test_a_seccomp_filter(number: int) -> None:
    wrapper = ("/usr/bin/python3", "-c", FILTER, str(number))
    code, found, _ = ids(*wrapper)
    assert (code, "seccomp" in found) == (18, True)
    if number == 1:
        done = failing(*wrapper, *command("count", "-d", "1"))
        assert (done.returncode, "seccomp" in done.stderr) == (18, True)


def test_missing_capabilities_are_named() -> None:
    for kept, missing in (("bpf", "CAP_PERFMON"), ("perfmon", "CAP_BPF")):
        wrapper = ("setpriv", f"--bounding-set=-all,+{kept}", f"--inh-caps=-all,+{kept}", "--")
        code, found, report = ids(*wrapper)
        assert (code, "capabilities" in found) == (10, True)
        assert report["reason"] == f"This process lacks {missing}."


def test_the_types_of_another_kernel(tmp_path: Path) -> None:
    other = tmp_path / "vmlinux"
    other.write_bytes(Path("/sys/kernel/btf/vmlinux").read_bytes())
    hide = f'mount --bind {other} /sys/kernel/btf/vmlinux; exec "$@"'
    code, found, _ = ids("unshare", "--mount", "sh", "-c", hide, "sh")
    assert (code, "btf-foreign" in found) == (11, True)


def test_no_types_at_all() -> None:
    hide = 'mount -t tmpfs none /sys/kernel/btf; exec "$@"'
    code, found, _ = ids("unshare", "--mount", "sh", "-c", hide, "sh")
    assert (code, "no-btf" in found) == (11, True)


def test_a_compiler_without_memory(tmp_path: Path) -> None:
    limited = 'ulimit -v 200000; exec "$@"'
    empty = {"CACHE_DIRECTORY": str(tmp_path / "cache")}
    done = failing("sh", "-c", limited, "sh", *command("count", "-d", "1"), env=empty)
    assert (done.returncode, "memory" in done.stderr) == (15, True), done.stderr


def test_no_bcc() -> None:
    hide = 'mount -t tmpfs none /usr/lib/python3/dist-packages/bcc; exec "$@"'
    code, found, _ = ids("unshare", "--mount", "sh", "-c", hide, "sh")
    assert (code, "no-bcc" in found) == (14, True)
