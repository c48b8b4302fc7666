"""What a kernel allows: reading the facts, and what is said of each obstacle."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hosts import BCC, GOOD, UNPRIVILEGED, function, without
from hypothesis import given
from hypothesis import strategies as st

from tracer.errors import Exit
from tracer.kernel import parsing
from tracer.kernel.checks import obstacles
from tracer.kernel.features import (
    KPROBE_PROGRAM,
    TRACING_PROGRAM,
    Features,
    Function,
    read,
)
from tracer.kernel.libraries import install_command, package_version, parse_os_release, read_bcc
from tracer.kernel.obstacles import Obstacle, decisive, ruling
from tracer.kernel.parsing import CAPABILITIES, Lockdown
from tracer.kernel.refusals import ENOTSUPP, explain
from tracer.model import Backend

NOBODY = 65534
BOTH, FENTRY, KPROBE = frozenset(Backend), frozenset({Backend.FENTRY}), frozenset({Backend.KPROBE})


def only(features: Features) -> Obstacle:
    """The one obstacle that there is."""
    (obstacle,) = obstacles(features)
    for sentence in (obstacle.problem, obstacle.cost, obstacle.cure):
        assert sentence[0].isupper() or sentence.startswith(("tracefs", "fentry"))
        assert sentence.endswith(".")
    return obstacle


def check(features: Features, name: str, code: Exit, blocks: frozenset[Backend], *words: str) -> None:
    """The one obstacle there is has this id, exit code and blocked backends, and its text these words."""
    obstacle = only(features)
    assert (obstacle.id, obstacle.code, obstacle.blocks) == (name, code, blocks)
    for word in words:
        assert word in f"{obstacle.problem} {obstacle.cost} {obstacle.cure}"


# What follows from the facts


def test_a_good_host_has_no_obstacle() -> None:
    assert obstacles(GOOD) == []
    assert ruling([]) is None


def test_cap_sys_admin_includes_the_finer_capabilities() -> None:
    assert obstacles(without("CAP_BPF", "CAP_PERFMON")) == []


@pytest.mark.parametrize("missing", ["CAP_BPF", "CAP_PERFMON"])
def test_a_missing_capability_is_named(missing: str) -> None:
    features = without("CAP_SYS_ADMIN", missing)
    check(features, "capabilities", Exit.NO_PERMISSION, BOTH, missing, "root")
    other = ({"CAP_BPF", "CAP_PERFMON"} - {missing}).pop()
    assert other not in only(features).problem


def test_an_unprivileged_process_is_told_of_its_capabilities_first() -> None:
    found = obstacles(UNPRIVILEGED)
    assert [obstacle.id for obstacle in found] == ["capabilities", "addresses-hidden"]
    ending = ruling(found)
    assert ending is not None
    assert ending.code is Exit.NO_PERMISSION


def test_root_of_a_user_namespace_is_not_root() -> None:
    features = replace(GOOD, initial_user_namespace=False, load_errors={KPROBE_PROGRAM: errno.EPERM})
    check(features, "user-namespace", Exit.NO_PERMISSION, BOTH, "container")


def test_another_architecture_is_refused_by_name() -> None:
    check(replace(GOOD, machine="aarch64"), "architecture", Exit.NO_HOOKS, BOTH, "aarch64", "x86_64")


def test_lockdown_for_confidentiality_ends_tracing() -> None:
    features = replace(GOOD, lockdown=Lockdown.CONFIDENTIALITY)
    check(features, "lockdown-confidentiality", Exit.LOCKDOWN, BOTH, "lockdown=integrity")


@pytest.mark.parametrize("mode", [Lockdown.INTEGRITY, None])
def test_lockdown_for_integrity_or_unknown_is_no_obstacle(mode: Lockdown | None) -> None:
    assert obstacles(replace(GOOD, lockdown=mode)) == []


def test_a_kernel_without_bpf() -> None:
    features = replace(GOOD, load_errors={KPROBE_PROGRAM: errno.ENOSYS, TRACING_PROGRAM: errno.ENOSYS})
    check(features, "no-bpf", Exit.NO_HOOKS, BOTH, "CONFIG_BPF_SYSCALL=y")


def test_a_policy_against_all_of_bpf() -> None:
    features = replace(GOOD, load_errors={KPROBE_PROGRAM: errno.EPERM, TRACING_PROGRAM: errno.EPERM})
    check(features, "bpf-refused", Exit.NO_PERMISSION, BOTH, "seccomp")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.ENOSYS])
def test_a_seccomp_filter_is_told_from_other_policies(number: int) -> None:
    features = replace(GOOD, seccomp=True, load_errors={KPROBE_PROGRAM: number, TRACING_PROGRAM: number})
    check(features, "seccomp", Exit.SECCOMP, BOTH, "bpf(2)", "profile")
    assert obstacles(replace(GOOD, seccomp=True)) == []


def test_another_kernels_types() -> None:
    check(replace(GOOD, btf_foreign=True), "btf-foreign", Exit.FOREIGN_BTF, BOTH, "sysfs")


def test_what_is_mounted_over_the_types_is_foreign() -> None:
    sysfs = "22 1 0:21 / /sys rw - sysfs sysfs rw\n"
    path = Path("/sys/kernel/btf/vmlinux")
    assert not parsing.is_foreign(sysfs + "23 1 8:1 / / rw - ext4 /dev/sda1 rw\n", path)
    assert parsing.is_foreign(sysfs + "30 22 8:1 /b /sys/kernel/btf/vmlinux ro - ext4 /dev/sda1 rw\n", path)
    assert parsing.is_foreign("23 1 8:1 / / rw - ext4 /dev/sda1 rw\n", path)
    assert not parsing.is_foreign("", path)
    # Of two on one point the later one is seen; a carriage return is part of a name.
    over = "31 22 0:9 / /sys rw - tmpfs none rw\n"
    assert parsing.is_foreign(sysfs + over, path)
    assert not parsing.is_foreign(over + sysfs, path)
    assert not parsing.is_foreign(sysfs + "32 1 0:9 / /a\r32 1 0:9 / /sys rw - tmpfs none rw\n", path)


@pytest.mark.parametrize(("version", "old"), [("0.25.0", True), ("0.26.0", False), ("1.0", False), ("unknown", False)])
def test_bcc_has_to_be_new_enough(version: str, old: bool) -> None:
    features = replace(GOOD, bcc=replace(BCC, version=version))
    if old:
        check(features, "bcc-too-old", Exit.OLD_BCC, BOTH, "0.25", "0.26")
    else:
        assert obstacles(features) == []


def test_without_ptrace_mappings_of_others_are_missing() -> None:
    check(without("CAP_SYS_PTRACE"), "no-ptrace", Exit.NO_PERMISSION, frozenset(), "maps", "CAP_SYS_PTRACE")


def test_a_live_patch_is_told_of() -> None:
    check(function("do_page_mkwrite", patched=True), "function-patched", Exit.BUSY, frozenset(), "EBUSY")
    listed = "do_wp_page (1) R I     \tcalls: x\ndo_page_mkwrite (1) R   D  tramp: y\nxdo_page_mkwrite (1) R I\n"
    assert parsing.parse_patched(listed, ("do_page_mkwrite", "do_wp_page")) == {"do_wp_page"}


@pytest.mark.parametrize("number", [errno.EBUSY, errno.E2BIG])
def test_another_tracer_that_holds_the_function_has_an_exit_code(number: int) -> None:
    error = explain(OSError(number, "x"), "attach do_page_mkwrite", Backend.FENTRY, GOOD)
    assert error.code is Exit.BUSY
    assert "--backend" in error.cure


def test_a_policy_against_tracing_programs_leaves_kprobes() -> None:
    features = replace(GOOD, load_errors={KPROBE_PROGRAM: 0, TRACING_PROGRAM: errno.EPERM})
    check(features, "fentry-refused", Exit.NO_PERMISSION, FENTRY, "policy")
    assert ruling(obstacles(features)) is None


def test_a_kernel_without_btf() -> None:
    check(replace(GOOD, btf=False), "no-btf", Exit.NO_BTF, BOTH, "CONFIG_DEBUG_INFO_BTF=y")


def test_bcc_missing_names_the_distributions_command() -> None:
    bcc = replace(BCC, version=None, python=None)
    check(replace(GOOD, bcc=bcc), "no-bcc", Exit.NO_BCC, BOTH, "apt-get install python3-bpfcc")
    unknown = only(replace(GOOD, bcc=replace(bcc, install="")))
    assert "apt" not in unknown.cure


def test_bcc_of_another_python() -> None:
    bcc = replace(BCC, version=None, python=None, place=Path("/usr/lib/python3.9/site-packages"))
    check(replace(GOOD, bcc=bcc), "bcc-other-python", Exit.OTHER_PYTHON, BOTH, "/usr/lib/python3.9", "another Python")


def test_a_missing_shared_library_is_named() -> None:
    bcc = replace(BCC, missing_libraries=("libbpf.so.1",))
    check(replace(GOOD, bcc=bcc), "no-library", Exit.NO_BCC, BOTH, "libbpf.so.1", "python3-bpfcc")


def test_low_memlock_matters_where_maps_are_charged_and_it_cannot_be_raised() -> None:
    old = replace(without("CAP_SYS_RESOURCE"), memlock=64 << 10, memlock_charged=True)
    check(old, "memlock", Exit.NO_MEMORY, BOTH, "64 KiB", "ulimit -l", "CAP_SYS_RESOURCE")
    refused = {KPROBE_PROGRAM: errno.EPERM, TRACING_PROGRAM: errno.EPERM}
    assert [o.id for o in obstacles(replace(old, load_errors=refused))] == ["memlock"]
    assert obstacles(replace(old, memlock=None)) == []
    assert obstacles(replace(old, memlock=64 << 20)) == []
    assert obstacles(replace(old, memlock_charged=False)) == []
    assert obstacles(replace(old, capabilities=GOOD.capabilities)) == []


def test_a_kernel_without_trampolines_leaves_kprobes() -> None:
    features = replace(GOOD, trampolines=False)
    check(features, "no-trampoline", Exit.NO_HOOKS, FENTRY, "CONFIG_FUNCTION_TRACER=y")


def test_bpf_without_its_compiler_leaves_kprobes() -> None:
    check(replace(GOOD, jit=False), "no-jit", Exit.NO_HOOKS, FENTRY, "net.core.bpf_jit_enable=1")
    assert obstacles(replace(GOOD, jit=None)) == []


def test_function_tracing_switched_off_is_a_warning() -> None:
    check(
        replace(GOOD, ftrace_enabled=False),
        "ftrace-off",
        Exit.NO_HOOKS,
        frozenset(),
        "kernel.ftrace_enabled=1",
    )


def test_a_kernel_without_kprobes_leaves_fentry() -> None:
    features = replace(GOOD, kprobes=False, tracefs=None, tracefs_writable=False)
    check(features, "no-kprobes", Exit.NO_HOOKS, KPROBE, "CONFIG_KPROBE_EVENTS=y")


def test_tracefs_not_mounted_rules_out_kprobes() -> None:
    features = replace(GOOD, tracefs=None, tracefs_writable=False)
    check(features, "no-tracefs", Exit.NO_TRACEFS, KPROBE, "mount -t tracefs nodev /sys/kernel/tracing")


def test_tracefs_that_may_not_be_written_rules_out_kprobes() -> None:
    check(
        replace(GOOD, tracefs_writable=False),
        "tracefs-denied",
        Exit.NO_TRACEFS,
        KPROBE,
        "/sys/kernel/tracing",
    )


@pytest.mark.parametrize(
    ("change", "name", "word"),
    [
        ({"copies": 0}, "function-missing", "no function"),
        ({"copies": 2}, "function-ambiguous", "not unique"),
        ({"traceable": False}, "function-untraceable", "ftrace"),
    ],
)
def test_a_function_that_cannot_be_hooked_says_what_is_lost(change: dict[str, int], name: str, word: str) -> None:
    code, none = Exit.FUNCTION_KEPT if name == "function-untraceable" else Exit.NO_FUNCTION, frozenset[Backend]()
    check(function("do_page_mkwrite", **change), name, code, FENTRY, word, "do_page_mkwrite", "handler")
    check(function("do_wp_page", **change), name, code, none, word, "do_wp_page", "not counted")
    check(function("fault_dirty_shared_page", **change), name, code, none, word, "raced")


def test_a_blacklisted_function_matters_to_kprobes_only() -> None:
    features = function("do_page_mkwrite", blacklisted=True)
    check(features, "function-blacklisted", Exit.FUNCTION_KEPT, frozenset(), "blacklisted", "kprobe backend")


def test_what_could_not_be_read_of_a_function_is_not_held_against_it() -> None:
    assert obstacles(function("do_page_mkwrite", traceable=None, blacklisted=None)) == []


def test_hidden_addresses_cost_the_handlers_names() -> None:
    hidden = replace(GOOD, addresses_hidden=True)
    check(hidden, "addresses-hidden", Exit.HIDDEN, frozenset(), "CAP_SYSLOG")
    always = replace(hidden, kptr_restrict=2)
    check(always, "addresses-hidden", Exit.HIDDEN, frozenset(), "kptr_restrict = 2", "kptr_restrict=1")


def test_a_pid_namespace_costs_the_meaning_of_pids() -> None:
    check(replace(GOOD, initial_pid_namespace=False), "pid-namespace", Exit.FAILED, frozenset(), "hostPID")


def test_what_ends_all_tracing_comes_first() -> None:
    found = obstacles(replace(GOOD, kprobes=False, btf=False, addresses_hidden=True))
    assert [obstacle.id for obstacle in found] == ["no-btf", "no-kprobes", "addresses-hidden"]
    assert found[0].fatal
    assert not found[1].fatal
    for backend in Backend:
        decided = decisive(found, backend)
        assert decided is not None
        assert decided.id == "no-btf"


def test_without_fentry_and_kprobes_there_are_tracepoints() -> None:
    found = obstacles(replace(GOOD, kprobes=False, trampolines=False))
    assert ruling(found) is None
    assert decisive(found, Backend.TRACEPOINT) is None


# Refusals


def test_a_refusal_is_explained_by_the_obstacle_behind_it() -> None:
    error = explain(PermissionError(errno.EPERM, "x"), "load a program", features=UNPRIVILEGED)
    assert error.problem.startswith("The kernel refused to load a program (EPERM): this process lacks CAP_")
    assert (error.cure, error.code) == ("Run mkwrite as root, e.g. with sudo.", Exit.NO_PERMISSION)


def test_a_refusal_for_memlock_is_not_taken_for_a_policy() -> None:
    old = replace(without("CAP_SYS_RESOURCE"), memlock=0, memlock_charged=True)
    for number in (errno.EPERM, errno.ENOMEM):
        error = explain(OSError(number, "x"), "create a map", features=old)
        assert error.code is Exit.NO_MEMORY
        assert error.cure.startswith("Raise the limit")


def test_a_refusal_under_lockdown() -> None:
    features = replace(GOOD, lockdown=Lockdown.CONFIDENTIALITY)
    assert explain(OSError(errno.EPERM, "x"), "attach", features=features).code is Exit.LOCKDOWN


def test_an_obstacle_of_the_other_backend_explains_nothing() -> None:
    features = replace(GOOD, trampolines=False)
    fentry = explain(OSError(errno.EINVAL, "x"), "attach to do_wp_page", Backend.FENTRY, features)
    kprobe = explain(OSError(errno.EINVAL, "x"), "attach to do_wp_page", Backend.KPROBE, features)
    assert "no BPF trampolines" in fentry.problem
    assert "trampolines" not in kprobe.problem


def test_an_obstacle_of_another_function_explains_nothing() -> None:
    features = function("do_wp_page", copies=2)
    error = OSError(errno.EADDRNOTAVAIL, "x")
    assert "has 2 functions do_wp_page" in explain(error, "attach to do_wp_page", features=features).problem
    assert "has 2" not in explain(error, "attach to do_page_mkwrite", features=features).problem


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (errno.EPERM, Exit.NO_PERMISSION, "seccomp"),
        (errno.EACCES, Exit.NO_PERMISSION, "verifier"),
        (errno.ENOSYS, Exit.NO_HOOKS, "system call"),
        (errno.EINVAL, Exit.NO_HOOKS, "lacks"),
        (errno.EOPNOTSUPP, Exit.NO_HOOKS, "support"),
        (ENOTSUPP, Exit.NO_HOOKS, "ENOTSUPP"),
        (errno.ENOENT, Exit.NO_HOOKS, "no such function"),
        (errno.EADDRNOTAVAIL, Exit.NO_HOOKS, "not unique"),
        (errno.EBUSY, Exit.BUSY, "nother tracer"),
        (errno.EEXIST, Exit.NO_HOOKS, "already"),
        (errno.E2BIG, Exit.BUSY, "too many BPF programs"),
        (errno.ENOMEM, Exit.NO_MEMORY, "memory"),
        (errno.EMFILE, Exit.FAILED, "ulimit -n"),
        (errno.ENFILE, Exit.FAILED, "fs.file-max"),
        (errno.EXDEV, Exit.FAILED, "strange"),
    ],
)
def test_each_errno_has_its_own_words(number: int, code: Exit, word: str) -> None:
    error = explain(OSError(number, "strange"), "attach", features=GOOD)
    assert error.code is code
    assert word in str(error)


def test_an_error_without_a_number_is_explained_too() -> None:
    assert explain(OSError("odd"), "attach", features=GOOD).code is Exit.FAILED


# Parsing


def test_effective_capabilities_are_those_of_the_mask() -> None:
    status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t000000c000000000\nCapBnd:\t000001ffffffffff\n"
    assert parsing.parse_capabilities(status) == {"CAP_BPF", "CAP_PERFMON"}
    all_but_one = set(CAPABILITIES) - {"CAP_SYS_RESOURCE"}
    assert parsing.parse_capabilities("CapEff:\t000001fffeffffff\n") == all_but_one
    assert parsing.parse_capabilities("") == set()


@given(st.sets(st.sampled_from(sorted(CAPABILITIES))))
def test_capabilities_survive_the_mask(names: set[str]) -> None:
    mask = sum(1 << CAPABILITIES[name] for name in names)
    assert parsing.parse_capabilities(f"CapEff:\t{mask:016x}\n") == names


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("[none] integrity confidentiality\n", Lockdown.NONE),
        ("none [integrity] confidentiality\n", Lockdown.INTEGRITY),
        ("none integrity [confidentiality]\n", Lockdown.CONFIDENTIALITY),
        ("none [other]\n", None),
        ("", None),
    ],
)
def test_the_lockdown_mode_is_the_one_in_brackets(text: str, mode: Lockdown | None) -> None:
    assert parsing.parse_lockdown(text) is mode


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 99)), min_size=1, max_size=5))
def test_cpu_lists_are_counted(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" if more else f"{first}" for first, more in ranges)
    assert parsing.parse_cpus(text + "\n") == sum(more + 1 for _, more in ranges)


def test_memlock_is_the_soft_limit() -> None:
    header = "Limit                     Soft Limit           Hard Limit           Units     \n"
    line = "Max locked memory         65536                67108864             bytes     \n"
    assert parsing.parse_memlock(header + line) == 65536
    assert parsing.parse_memlock(header + line.replace("65536   ", "unlimited")) is None


def test_mounts_are_found_by_type_and_unescaped() -> None:
    mountinfo = (
        "24 30 0:7 / /sys/kernel/debug rw shared:14 - debugfs debugfs rw\n"
        "25 30 0:12 / /sys/kernel/tracing rw shared:15 - tracefs tracefs rw\n"
        "26 24 0:12 / /mnt/a\\040b rw - tracefs nodev rw\n"
        "27 24 0:13 / /tracefs rw - ext4 tracefs rw\n"
        "\n"
        "garbage\n"
    )
    assert parsing.parse_mounts(mountinfo, "tracefs") == [Path("/sys/kernel/tracing"), Path("/mnt/a b")]
    assert parsing.parse_mounts(mountinfo, "debugfs") == [Path("/sys/kernel/debug")]


def test_functions_in_ftraces_list_are_matched_whole() -> None:
    available = "do_wp_page_more\nmy_do_wp_page\next4_page_mkwrite [ext4]\ndo_page_mkwrite\n"
    names = ("do_wp_page", "do_page_mkwrite", "ext4_page_mkwrite", "my")
    assert parsing.parse_traceable(available, names) == {"do_page_mkwrite", "ext4_page_mkwrite"}


def test_the_blacklist_gives_names() -> None:
    text = "0xffffffff81a00000-0xffffffff81a000f0\tdo_user_addr_fault\n0x0000-0x0000\texc_page_fault\n\n"
    assert parsing.parse_blacklist(text) == {"do_user_addr_fault", "exc_page_fault"}


@given(st.text(alphabet="[]() -\t\n0123456789abcdefxyzCapEff:Max locked memory,|", max_size=200))
def test_no_text_upsets_the_parsers(text: str) -> None:
    parsing.parse_capabilities(text)
    parsing.parse_lockdown(text)
    assert parsing.parse_cpus(text) >= 1
    parsing.parse_memlock(text)
    parsing.parse_mounts(text, "tracefs")
    parsing.parse_blacklist(text)
    parse_os_release(text)


# Libraries

OS = 'PRETTY_NAME="X"\nNAME="X"\nID={}\n'


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


# Reading


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


def test_kprobes_need_more_than_perfmon_where_perf_events_are_restricted() -> None:
    restricted = without("CAP_SYS_ADMIN")
    assert restricted.perf_event_paranoid == 3
    assert [o.id for o in obstacles(restricted)] == ["perf-paranoid"]
    assert [o.id for o in obstacles(replace(restricted, perf_event_paranoid=2))] == []
    assert [o.id for o in obstacles(GOOD)] == []
