"""What the kernel keeps of its functions from a tracer: lists that say so, hidden addresses, no tracefs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.guest import TRACING, WORKLOAD, command
from tests.live.test_obstacles import failing, hiding

pytestmark = pytest.mark.nightly

FIRST = 41
BLACKLIST = Path("/sys/kernel/debug/kprobes/blacklist")


def doctor(*wrapper: str) -> tuple[int, dict[str, dict[str, Any]], dict[str, Any]]:
    """The exit code of ``mkwrite doctor``, its rows about the host by their ids, and its rows about hooks by name."""
    done = subprocess.run([*wrapper, *command("doctor", "--json")], capture_output=True, text=True, check=False)
    rows = json.loads(done.stdout)["rows"]
    return (
        done.returncode,
        {row["id"]: row for row in rows if row["section"] == "host"},
        {row["name"]: row for row in rows if row["section"] == "hooks"},
    )


def test_a_function_that_ftrace_does_not_list(tmp_path: Path) -> None:
    shown = tmp_path / "functions"
    listed = TRACING / "available_filter_functions"
    code, host, hooks = doctor(*hiding(f"sed /^do_wp_page$/d {listed} >{shown}", f"mount --bind {shown} {listed}"))
    assert (code, "ftrace does not list it" in host["function-untraceable"]["text"]) == (0, True)
    assert hooks["do_wp_page fentry"]["state"] == hooks["do_wp_page kprobe"]["state"] == "obstacle"
    assert hooks["do_page_mkwrite fentry"]["state"] == "ok"


def test_a_function_that_kprobes_are_kept_off(tmp_path: Path) -> None:
    shown = tmp_path / "blacklist"
    shown.write_text(BLACKLIST.read_text() + "0xffffffff81000000-0xffffffff81000010\tdo_page_mkwrite\n")
    code, host, hooks = doctor(*hiding(f"mount --bind {shown} {BLACKLIST}"))
    assert (code, "kprobes off do_page_mkwrite" in host["function-blacklisted"]["text"]) == (0, True)
    assert (hooks["do_page_mkwrite fentry"]["state"], hooks["do_page_mkwrite kprobe"]["state"]) == ("ok", "obstacle")


def test_without_tracefs_there_are_no_kprobes() -> None:
    wrapper = hiding("umount /sys/kernel/tracing", "umount /sys/kernel/debug")
    code, host, _ = doctor(*wrapper)
    assert (code, "not mounted" in host["no-tracefs"]["text"]) == (0, True)
    done = failing(*wrapper, *command("count", "--backend", "kprobe", "-d", "1"))
    assert (done.returncode, "mount -t tracefs" in done.stderr) == (17, True), done.stderr


@contextmanager
def addresses_hidden() -> Iterator[None]:
    """From everybody."""
    restrict = Path("/proc/sys/kernel/kptr_restrict")
    before = restrict.read_text()
    restrict.write_text("2")
    try:
        yield
    finally:
        restrict.write_text(before)


@pytest.mark.usefixtures("clean_kernel")
def test_hidden_addresses_are_no_silent_filter(mounts: dict[str, Path], tmp_path: Path) -> None:
    """A handler is hooked by its name, or not at all: no address is nobody's."""
    out = tmp_path / "counts"
    writer = (WORKLOAD, "first-write", str(mounts["ext4"] / "hidden"), str(FIRST))
    asked = ("count", "--json", "--handler", "ext4_page_mkwrite")
    with addresses_hidden():
        code, host, _ = doctor()
        named = subprocess.run(
            command(*asked, "-o", str(out), "--", *writer), capture_output=True, text=True, check=False
        )
        forced = failing(*command(*asked, "--backend", "fentry", "--", *writer))
    assert (code, "kptr_restrict = 2" in host["addresses-hidden"]["text"]) == (0, True)
    assert (forced.returncode, "kptr_restrict" in forced.stderr) == (27, True), forced.stderr
    assert named.returncode == 0, named.stderr
    counts = [call["latency"]["count"] for call in json.loads(out.read_text())["calls"]]
    assert sum(counts) == FIRST
