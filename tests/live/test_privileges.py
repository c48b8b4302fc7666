"""Less than root: single capabilities, a container, a pid namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.live.guest import ROOT, WORKLOAD, command, run
from tests.live.refusals import NOBODY, OFFSET, SIZE, VICTIM, Refusal, prepare
from tracer.kernel.btf import Btf
from tracer.probes import program
from tracer.probes.attach import attach_fentry
from tracer.probes.program import BpfObject

pytestmark = pytest.mark.nightly

FIRST = 41
PARANOID = Path("/proc/sys/kernel/perf_event_paranoid")


@pytest.fixture(scope="module")
def place() -> Path:
    """A filesystem that everybody may write to."""
    return prepare(Refusal("ext4", "ext4", "ENOSPC", size=64, late=True), "-rights").parent


@pytest.fixture(scope="module")
def cache() -> Path:
    """The compiled objects, as a user's own: nobody else's are trusted."""
    own = Path("/tmp/rights-cache")
    shutil.copytree(os.environ["CACHE_DIRECTORY"], own)
    for path in (own, *own.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    return own


def as_nobody(*capabilities: str) -> list[str]:
    """A user without any right but these."""
    wanted = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    sets = [f"--{which}={wanted}" for which in ("bounding-set", "inh-caps", "ambient-caps")]
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *sets, "--"]


def counted(wrapper: list[str], cache: Path, file: Path, *options: str) -> dict[str, Any]:
    """What ``mkwrite count`` behind a wrapper counts of a workload."""
    done = subprocess.run(
        [
            *wrapper,
            *command("count", "--json", "--fs", "ext4", *options, "--", WORKLOAD, "first-write", str(file), str(FIRST)),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CACHE_DIRECTORY": str(cache)},
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.parametrize("named", [False, True], ids=["unnamed", "named"])
def test_cap_bpf_and_cap_perfmon_are_enough(place: Path, cache: Path, named: bool) -> None:
    """With kernel.perf_event_paranoid as Debian has it; before 5.11 there is a limit that has to be raised."""
    assert PARANOID.read_text() == "3\n"
    rights = ["bpf", "perfmon", *(["syslog"] if named else [])]
    if "bpf_map_charge_init" in Path("/proc/kallsyms").read_text():
        rights.append("sys_resource")
    found = counted(as_nobody(*rights), cache, place / f"rights-{named}")
    assert sum(call["latency"]["count"] for call in found["calls"]) == FIRST
    assert {hook["backend"] for hook in found["hooks"]} == {"fentry"}
    handlers = {call["handler"] for call in found["calls"]}
    assert (handlers == {"ext4_page_mkwrite"}) is named


def test_sigbus_as_nobody(place: Path, cache: Path) -> None:
    wrapper = as_nobody("bpf", "perfmon", "syslog", "sys_resource")
    short = place / "short"
    done = subprocess.run(
        [*wrapper, *command("sigbus", "--json", "--", VICTIM, "shrunk", str(short), str(SIZE), "4096", str(OFFSET))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CACHE_DIRECTORY": str(cache)},
    )
    assert done.returncode == 128 + 7, done.stderr
    (found,) = (json.loads(line) for line in done.stdout.splitlines() if line.startswith("{"))
    assert (found["class"], found["file"], found["uid"]) == ("beyond_end", str(short), NOBODY)


def test_in_a_container_with_a_pid_namespace(place: Path) -> None:
    """A root of its own with the mounts of docs/privileges.md, and nothing else of the host."""
    root = ROOT / "container"
    root.mkdir()
    run("mount", "-t", "tmpfs", "none", str(root))
    cache = os.environ["CACHE_DIRECTORY"]
    checkout = str(Path(__file__).parents[2])
    python = str(Path(sys.executable).parents[1].resolve())
    binds = ["/usr", "/etc", checkout, python, cache, str(place), str(Path(sys.base_prefix))]
    lines = [f"mkdir -p {root}{path}; mount --rbind {path} {root}{path}" for path in dict.fromkeys(binds)]
    script = "\n".join([
        "set -e",
        f"for link in bin lib lib64 sbin; do cp -a /$link {root}/$link; done",
        *lines,
        f"cp {VICTIM} {root}/victim",
        f"mkdir -p {root}/proc {root}/sys {root}/tmp {root}/old {root}/dev",
        f"mount -t proc proc {root}/proc",
        f"mount -t sysfs -o ro sysfs {root}/sys",
        f"mount -t tracefs nodev {root}/sys/kernel/tracing",
        f"cd {root}; pivot_root . old; umount -l /old; cd {checkout}",
        'exec "$@"',
    ])  # fmt: skip
    short = place / "in-container"
    done = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "--", "sh", "-c", script, "sh",
         *command("sigbus", "--json", "--", "/victim", "shrunk", str(short), str(SIZE), "4096", str(OFFSET))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 128 + 7, done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    (found,) = (report for report in reports if report["signal"] and report["comm"] == "victim")
    assert (found["class"], found["file"]) == ("beyond_end", str(short)), reports
    assert found["namespace_pid"] < found["pid"]
    assert found["host"]["mountpoint"] == str(place)


def doctor(*wrapper: str, cache: Path | None = None) -> tuple[int, set[str]]:
    """Exit code and ids of ``mkwrite doctor``."""
    env = {**os.environ, **({"CACHE_DIRECTORY": str(cache)} if cache else {})}
    done = subprocess.run(
        [*wrapper, *command("doctor", "--json")], capture_output=True, text=True, check=False, env=env
    )
    return done.returncode, {row["id"] for row in json.loads(done.stdout)["rows"]}


def test_addresses_hidden_from_everybody() -> None:
    restrict = Path("/proc/sys/kernel/kptr_restrict")
    before = restrict.read_text()
    restrict.write_text("2")
    try:
        code, found = doctor()
    finally:
        restrict.write_text(before)
    assert (code, "addresses-hidden" in found) == (0, True)


def test_locked_memory_where_it_counts(cache: Path) -> None:
    limited = ["prlimit", "--memlock=65536:65536", *as_nobody("bpf", "perfmon", "syslog")]
    code, found = doctor(*limited, cache=cache)
    charged = "bpf_map_charge_init" in Path("/proc/kallsyms").read_text()
    assert ("memlock" in found) is charged
    if charged:
        assert code == 15


def test_a_function_that_others_have_filled(place: Path) -> None:
    """As many BPF programs on it as the kernel lets be (BPF_MAX_TRAMP_LINKS): another backend, or a clear error."""
    nothing = BpfObject({}, {"nothing": bytes.fromhex("b700000000000000 9500000000000000")}, {"nothing": ()})
    with Btf() as btf:
        number = btf.function("do_page_mkwrite") or 0
    held: list[int] = []
    try:
        with suppress(OSError):
            while len(held) < 200:
                held.append(program.load(nothing, "nothing", {}, program.TRACING, program.FENTRY, number))
                held.append(attach_fentry(held[-1]))
        forced = subprocess.run(
            command("count", "--backend", "fentry", "-d", "1"), capture_output=True, text=True, check=False
        )
        assert (forced.returncode, "too many BPF programs" in forced.stderr) == (19, True), forced.stderr
        found = counted([], Path(os.environ["CACHE_DIRECTORY"]), place / "filled")
    finally:
        for descriptor in held:
            os.close(descriptor)
    assert sum(call["latency"]["count"] for call in found["calls"]) == FIRST
    assert "kprobe" in {hook["backend"] for hook in found["hooks"]}
