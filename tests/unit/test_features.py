"""What a kernel allows, read from a recorded host."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import OS

from tracer.kernel.checks import obstacles
from tracer.kernel.features import KPROBE_PROGRAM, TRACING_PROGRAM, Function, read
from tracer.kernel.parsing import CAPABILITIES, Lockdown

NOBODY = 65534


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


RECORDED = {
    "proc/kallsyms": "ffffffff81000000 T _text\n"
    "ffffffff8128ec50 t do_page_mkwrite\n"
    "ffffffff81292510 t do_wp_page\n"
    "ffffffff81292710 t do_wp_page\n"
    "ffffffff81400000 T bpf_trampoline_link_prog\n"
    "ffffffff81500000 T bpf_map_charge_init\n"
    "ffffffffc0a51230 t ext4_page_mkwrite\t[ext4]\n",
    "proc/modules": "ext4 1146880 2 - Live 0xffffffffc0a00000\n",
    "proc/self/status": "CapEff:\t000001ffffffffff\n",
    "proc/self/limits": "Max locked memory         65536                65536                bytes     \n",
    "proc/self/mountinfo": "24 30 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n"
    "26 30 0:12 / /elsewhere rw - tracefs nodev rw\n"
    "25 30 0:12 / /sys/kernel/tracing rw - tracefs tracefs rw\n",
    "proc/sys/kernel/osrelease": "5.10.0-34-amd64\n",
    "proc/sys/kernel/kptr_restrict": "1\n",
    "proc/sys/kernel/perf_event_paranoid": "-1\n",
    "proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
    "proc/sys/kernel/ftrace_enabled": "0\n",
    "proc/sys/net/core/bpf_jit_enable": "1\n",
    "sys/devices/system/cpu/possible": "0-7\n",
    "sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
    "sys/kernel/btf/vmlinux": "",
    "sys/bus/event_source/devices/kprobe/type": "8\n",
    "sys/kernel/tracing/available_filter_functions": "do_page_mkwrite\nother\n",
    "sys/kernel/tracing/kprobe_events": "",
    "sys/kernel/debug/kprobes/blacklist": "0xffffffff81292510-0xffffffff81292600\tdo_wp_page\n",
    "etc/os-release": OS.format("fedora"),
}


def refuse_tracing(program_type: int) -> int:
    return errno.EPERM if program_type == TRACING_PROGRAM else 0


def test_a_recorded_host_is_read_as_it_was(tmp_path: Path) -> None:
    features = read(tree(tmp_path, RECORDED), trial=refuse_tracing)
    assert features.release == "5.10.0-34-amd64"
    assert features.cpus == 8
    assert features.capabilities == set(CAPABILITIES)
    assert features.lockdown is Lockdown.INTEGRITY
    assert (features.btf, features.kprobes, features.trampolines) == (True, True, True)
    assert (features.jit, features.ftrace_enabled) == (True, False)
    assert (features.tracefs, features.tracefs_writable) == (Path("/sys/kernel/tracing"), True)
    assert features.functions == (
        Function("do_page_mkwrite", 1, True, False),
        Function("fault_dirty_shared_page", 0, False, False),
        Function("do_wp_page", 2, False, True),
    )
    assert features.handlers == ("ext4_page_mkwrite",)
    assert not features.addresses_hidden
    assert (features.kptr_restrict, features.perf_event_paranoid) == (1, -1)
    assert features.unprivileged_bpf_disabled == 2
    assert (features.memlock, features.memlock_charged) == (65536, True)
    assert features.load_errors == {KPROBE_PROGRAM: 0, TRACING_PROGRAM: errno.EPERM}
    assert features.bcc.install == "dnf install python3-bcc"
    assert features.unread == ()


def test_an_empty_host_allows_nothing_and_raises_nothing(tmp_path: Path) -> None:
    features = read(tmp_path, trial=lambda _: errno.ENOSYS)
    assert (features.btf, features.kprobes, features.trampolines) == (False, False, False)
    assert (features.tracefs, features.tracefs_writable) == (None, False)
    assert features.addresses_hidden
    assert features.capabilities == set()
    assert all(function.traceable is None and function.copies == 0 for function in features.functions)
    assert (features.lockdown, features.jit, features.kptr_restrict) == (None, None, None)
    ids = {obstacle.id for obstacle in obstacles(features)}
    assert {"capabilities", "no-bpf", "no-btf", "no-trampoline", "no-kprobes", "function-missing"} <= ids


def test_tracefs_is_found_under_debugfs(tmp_path: Path) -> None:
    files = {**RECORDED, "proc/self/mountinfo": "24 30 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n"}
    assert read(tree(tmp_path, files), trial=refuse_tracing).tracefs == Path("/sys/kernel/debug/tracing")


@pytest.fixture
def not_root() -> Iterator[None]:
    """Root may read everything: be somebody else, if we are root, for as long as the test lasts."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


def test_what_may_not_be_read_is_named(not_root: None) -> None:
    # Not tmp_path, which only its owner may enter.
    with tempfile.TemporaryDirectory() as directory:
        root = tree(Path(directory), RECORDED)
        (root / "sys/kernel/tracing/available_filter_functions").chmod(0)
        features = read(root, trial=refuse_tracing)
    assert features.unread == ("/sys/kernel/tracing/available_filter_functions",)
    assert all(function.traceable is None for function in features.functions)


@pytest.mark.parametrize("namespace", ["user", "pid"])
def test_namespaces_are_told_from_the_initial_ones(tmp_path: Path, namespace: str) -> None:
    root = tree(tmp_path, RECORDED)
    (root / "proc/self/ns").mkdir()
    (root / "proc/self/ns/user").symlink_to("user:[4026531837]")
    (root / "proc/self/ns/pid").symlink_to("pid:[4026531836]")
    features = read(root, trial=refuse_tracing)
    assert features.initial_user_namespace
    assert features.initial_pid_namespace
    (root / "proc/self/ns" / namespace).unlink()
    (root / "proc/self/ns" / namespace).symlink_to(f"{namespace}:[4026532999]")
    features = read(root, trial=refuse_tracing)
    assert features.initial_user_namespace is (namespace != "user")
    assert features.initial_pid_namespace is (namespace != "pid")
