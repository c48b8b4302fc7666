"""The kernel's own texts: capabilities, limits, mounts, functions."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.kernel import parsing
from tracer.kernel.libraries import parse_os_release
from tracer.kernel.parsing import CAPABILITIES, Lockdown


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
