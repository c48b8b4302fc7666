"""Obstacles that can be put in the way of a process on any kernel: each with its own message and exit code."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.guest import command

pytestmark = [pytest.mark.native, pytest.mark.nightly]

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


def hiding(*steps: str) -> tuple[str, ...]:
    """A wrapper in whose mount namespace something is not as it is."""
    return ("unshare", "--mount", "sh", "-c", "; ".join(["set -e", *steps, 'exec "$@"']), "sh")


NO_BCC = "mount -t tmpfs none /usr/lib/python3/dist-packages/bcc"


def test_the_types_of_another_kernel(tmp_path: Path) -> None:
    other = tmp_path / "vmlinux"
    other.write_bytes(Path("/sys/kernel/btf/vmlinux").read_bytes())
    wrapper = hiding(f"mount --bind {other} /sys/kernel/btf/vmlinux")
    code, found, _ = ids(*wrapper)
    assert (code, "btf-foreign" in found) == (21, True)
    # The programs may well be cached, and would load.
    done = failing(*wrapper, *command("count", "-d", "1"))
    assert (done.returncode, "not the running kernel's own" in done.stderr) == (21, True), done.stderr


def test_no_types_at_all() -> None:
    wrapper = hiding("mount -t tmpfs none /sys/kernel/btf")
    code, found, _ = ids(*wrapper)
    assert (code, "no-btf" in found) == (11, True)
    done = failing(*wrapper, *command("count", "-d", "1"))
    assert (done.returncode, "CONFIG_DEBUG_INFO_BTF" in done.stderr) == (11, True), done.stderr


def test_a_compiler_without_memory(tmp_path: Path) -> None:
    limited = 'ulimit -v 200000; exec "$@"'
    empty = {"CACHE_DIRECTORY": str(tmp_path / "cache")}
    done = failing("sh", "-c", limited, "sh", *command("count", "-d", "1"), env=empty)
    assert (done.returncode, "memory" in done.stderr) == (24, True), done.stderr


@pytest.mark.nightly
@pytest.mark.here
@pytest.mark.parametrize("files", [12, 18, 24, 30])
def test_too_few_descriptors_are_said_wherever_they_run_out(files: int, tmp_path: Path) -> None:
    """In the compiler too, and among the last hooks that are tried, after others were refused for another reason."""
    limited = ("sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command("count", "-d", "100ms"))
    for cache in (str(tmp_path / "cold"), os.environ["CACHE_DIRECTORY"]):
        env = {**os.environ, "CACHE_DIRECTORY": cache}
        done = subprocess.run(limited, capture_output=True, text=True, check=False, env=env)
        if done.returncode or files == 12:
            assert (done.returncode, "ulimit -n" in done.stderr) == (1, True), done.stderr


def without_cache(wrapper: tuple[str, ...], tmp_path: Path) -> tuple[int, str]:
    """How a command ends that has to compile, and what it says."""
    done = failing(*wrapper, *command("count", "-d", "1"), env={"CACHE_DIRECTORY": str(tmp_path / "cache")})
    return done.returncode, done.stderr


def test_no_bcc(tmp_path: Path) -> None:
    wrapper = hiding(NO_BCC)
    code, found, _ = ids(*wrapper)
    assert (code, "no-bcc" in found) == (14, True)
    code, said = without_cache(wrapper, tmp_path)
    assert (code, "BCC's Python module is not installed" in said) == (14, True), said


def test_a_bcc_that_is_too_old(tmp_path: Path) -> None:
    version = tmp_path / "version.py"
    version.write_text("__version__ = '0.25.0'\n")
    code, found, report = ids(*hiding(f"mount --bind {version} /usr/lib/python3/dist-packages/bcc/version.py"))
    assert (code, "bcc-too-old" in found) == (22, True)
    assert report["reason"].startswith("BCC 0.25.0 is older than 0.26")


def test_the_bcc_of_another_python(tmp_path: Path) -> None:
    other = "/usr/libexec/python3.9/site-packages/bcc"
    made = ("mount -t tmpfs none /usr/libexec", f"mkdir -p {other}", f"touch {other}/__init__.py {other}/libbcc.py")
    wrapper = hiding(NO_BCC, *made)
    code, found, _ = ids(*wrapper)
    assert (code, "bcc-other-python" in found) == (23, True)
    code, said = without_cache(wrapper, tmp_path)
    assert (code, "for another Python" in said) == (23, True), said


def test_a_library_that_cannot_be_loaded() -> None:
    places = Path("/usr/lib/x86_64-linux-gnu")
    wrapper = hiding(f"mount --bind /dev/null {(places / 'libbpf.so.1').resolve()}")
    code, found, _ = ids(*wrapper)
    assert (code, "no-library" in found) == (14, True)
    done = failing(*wrapper, *command("count", "-d", "1"))
    assert (done.returncode, "libbpf.so.1 cannot be loaded" in done.stderr) == (14, True), done.stderr


def test_root_of_a_user_namespace_only() -> None:
    code, found, report = ids("unshare", "--user", "--map-root-user")
    assert (code, "user-namespace" in found) == (10, True)
    assert "user namespace" in report["reason"]


@pytest.mark.parametrize(
    ("edit", "number"),
    [("/ do_wp_page$/d", "function-missing"), ("s/ do_wp_page$/&\\n0 t do_wp_page/", "function-ambiguous")],
)
def test_a_function_that_is_not_there_or_is_there_twice(tmp_path: Path, edit: str, number: str) -> None:
    """Doctor alone: what kallsyms tells is all that is changed."""
    names = tmp_path / "kallsyms"
    wrapper = hiding(f"sed '{edit}' /proc/kallsyms >{names}", f"mount --bind {names} /proc/kallsyms")
    _, found, report = ids(*wrapper)
    assert number in found
    (row,) = (row for row in report["rows"] if row["id"] == number and row["section"] == "host")
    assert ("do_wp_page" in row["text"], row["state"]) == (True, "warning")


def test_a_bug_report_has_nothing_private() -> None:
    """Not the host's name, not the user's, and no path that only this host has."""
    wrapper = ("unshare", "--uts", "sh", "-c", 'hostname ledger7.bank.example; exec "$@"', "sh")
    private = {"SUDO_USER": "alice", "HOME": "/home/alice", "CACHE_DIRECTORY": "/home/alice/cache"}
    done = subprocess.run(
        [*wrapper, *command("doctor", "--report")],
        capture_output=True, text=True, check=False, env={**os.environ, **private},
    )  # fmt: skip
    text = done.stdout.removeprefix("```json").rstrip().removesuffix("```")
    assert json.loads(text)["kernel"] == os.uname().release
    for secret in ("ledger7", "bank", "alice", "/home", str(Path(__file__).parents[2])):
        assert secret not in done.stdout
