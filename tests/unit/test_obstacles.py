"""What is said of each obstacle that follows from the facts of a host."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest
from hosts import BCC, GOOD, UNPRIVILEGED, function, without

from tracer.doctor.checkup import judge
from tracer.errors import Exit
from tracer.kernel import parsing
from tracer.kernel.checks import obstacles
from tracer.kernel.features import KPROBE_PROGRAM, TRACING_PROGRAM, Features
from tracer.kernel.obstacles import Obstacle, decisive, ruling
from tracer.kernel.parsing import Lockdown
from tracer.model.hooks import Backend

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


#: Hosts where rights are missing, each in its way.
RIGHTS = (
    UNPRIVILEGED,
    *(without("CAP_SYS_ADMIN", name) for name in ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE")),
    without("CAP_SYS_ADMIN"),
    replace(GOOD, tracefs_writable=False),
    replace(GOOD, addresses_hidden=True),
)


@pytest.mark.parametrize("features", RIGHTS)
def test_root_is_not_told_to_be_root(features: Features) -> None:
    told = [obstacle.cure for obstacle in obstacles(features)]
    assert any("as root" in cure for cure in told)
    assert not [o.cure for o in obstacles(replace(features, root=True)) if "as root" in o.cure]


@pytest.mark.parametrize(("root", "words"), [(False, "as root"), (True, "keep root from it")])
def test_files_that_may_not_be_read_have_advice_for_who_asks(root: bool, words: str) -> None:
    rows = judge(replace(GOOD, unread=("/sys/kernel/tracing/kprobe_profile",), root=root), None).rows
    (row,) = (row for row in rows if row.name == "not readable")
    assert words in row.cure and ("as root" in row.cure) is not root


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


def test_kprobes_need_more_than_perfmon_where_perf_events_are_restricted() -> None:
    restricted = without("CAP_SYS_ADMIN")
    assert restricted.perf_event_paranoid == 3
    assert [o.id for o in obstacles(restricted)] == ["perf-paranoid"]
    assert [o.id for o in obstacles(replace(restricted, perf_event_paranoid=2))] == []
    assert [o.id for o in obstacles(GOOD)] == []
