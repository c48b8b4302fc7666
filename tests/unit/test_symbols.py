"""kallsyms: which handlers it lists, what an address is called, and how it is read."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.kernel.symbols import Symbol, Symbols

# Lines of Debian kernels 5.10, 6.1 and 6.12, as the file has them: the kernel, modules, BPF programs.
RECORDED = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T startup_64
ffffffff81000000 T _stext
ffffffff8128ec40 t __pfx_do_page_mkwrite
ffffffff8128ec50 t do_page_mkwrite
ffffffff81292510 t do_wp_page
ffffffff81253ab0 T filemap_page_mkwrite
ffffffff81253ab0 T filemap_alias
ffffffff81333b00 T block_page_mkwrite
ffffffff81355770 T iomap_page_mkwrite
ffffffff8121e9f0 t perf_mmap_fault
ffffffff81ac9d28 t perf_mmap_fault.cold
ffffffff813bc600 t kernfs_vma_page_mkwrite
ffffffff8144d3c0 t sel_mmap_policy_fault
ffffffff8158a2e0 t fb_deferred_io_mkwrite
ffffffff82b1e0a0 d dax_page_mkwrite
ffffffff8299c1c0 r __ksymtab_filemap_page_mkwrite
ffffffff81b82a0d t do_fault
ffffffff81c82a0d t do_fault
ffffffff819c0000 W weak_function
ffffffffc0a51230 t ext4_page_mkwrite\t[ext4]
ffffffffc0a51a00 t ext4_page_mkwrite.cold\t[ext4]
ffffffffc0a52000 t ext4_page_mkwrite.isra.0\t[ext4]
ffffffffc0b23100 t xfs_filemap_pfn_mkwrite\t[xfs]
ffffffffc0b23130 t xfs_filemap_page_mkwrite\t[xfs]
ffffffffc0c00010 T __traceiter_f2fs_vm_page_mkwrite\t[f2fs]
ffffffffc0c00020 t __bpf_trace_f2fs_vm_page_mkwrite\t[f2fs]
ffffffffc0c00030 t trace_raw_output_f2fs_vm_page_mkwrite\t[f2fs]
ffffffffc0c00040 t perf_trace_f2fs_vm_page_mkwrite\t[f2fs]
ffffffffc0c00050 t f2fs_vm_page_mkwrite\t[f2fs]
ffffffffc0d00000 t vmw_bo_vm_mkwrite\t[vmwgfx]
ffffffffc0e00000 t __ocfs2_page_mkwrite\t[ocfs2]
ffffffffc0e00100 t netfs_page_mkwrite\t[netfs]
ffffffffc0f00000 t bpf_prog_6deef7357e7b4530_do_page_mkwrite\t[bpf]
"""
HANDLERS = {
    "filemap_page_mkwrite",
    "perf_mmap_fault",
    "kernfs_vma_page_mkwrite",
    "sel_mmap_policy_fault",
    "fb_deferred_io_mkwrite",
    "ext4_page_mkwrite",
    "xfs_filemap_page_mkwrite",
    "f2fs_vm_page_mkwrite",
    "vmw_bo_vm_mkwrite",
}
EXT4 = "ext4 1146880 2 - Live 0xffffffffc0a00000\n"
XFS = "xfs 2473984 0 - Live 0xffffffffc0b00000\n"


def proc(directory: Path, kallsyms: str, modules: str = "") -> Path:
    (directory / "kallsyms").write_text(kallsyms)
    (directory / "modules").write_text(modules)
    return directory


def test_handlers_are_the_functions_in_vm_ops_and_nothing_else(tmp_path: Path) -> None:
    handlers = Symbols(proc=proc(tmp_path, RECORDED)).handlers()
    assert set(handlers) == HANDLERS
    assert handlers["ext4_page_mkwrite"].address == 0xFFFFFFFFC0A51230
    assert handlers["ext4_page_mkwrite"].module == "ext4"
    assert handlers["filemap_page_mkwrite"].module == ""


def test_duplicate_names_are_all_found(tmp_path: Path) -> None:
    symbols = Symbols(["do_fault", "do_page_mkwrite"], proc=proc(tmp_path, RECORDED))
    assert [symbol.address for symbol in symbols.find("do_fault")] == [0xFFFFFFFF81B82A0D, 0xFFFFFFFF81C82A0D]
    assert symbols.find("do_page_mkwrite") == [Symbol("do_page_mkwrite", 0xFFFFFFFF8128EC50, "t")]


def test_a_name_is_matched_whole(tmp_path: Path) -> None:
    symbols = Symbols(proc=proc(tmp_path, RECORDED))
    assert symbols.find("page_mkwrite") == []
    assert symbols.find("do_page") == []
    assert symbols.find("do_page_mkwrit.") == []
    assert len(symbols.find("ext4_page_mkwrite.cold")) == 1


def test_data_symbols_are_no_functions(tmp_path: Path) -> None:
    symbols = Symbols(proc=proc(tmp_path, RECORDED))
    assert not symbols.find("dax_page_mkwrite")[0].is_function
    assert symbols.find("weak_function")[0].is_function


def test_an_address_is_named_exactly_or_not_at_all(tmp_path: Path) -> None:
    symbols = Symbols(proc=proc(tmp_path, RECORDED))
    assert symbols.name_of(0xFFFFFFFFC0A51230) == "ext4_page_mkwrite"
    assert symbols.name_of(0xFFFFFFFFC0A51231) == "0xffffffffc0a51231"
    assert symbols.name_of(0xFFFFFFFF81292510) == "do_wp_page"
    assert symbols.name_of(0xFFFFFFFF82B1E0A0) == "0xffffffff82b1e0a0"  # data
    assert symbols.name_of(0) == "0x0"


def test_of_two_functions_at_one_address_the_first_gives_the_name(tmp_path: Path) -> None:
    symbols = Symbols(proc=proc(tmp_path, RECORDED))
    assert symbols.name_of(0xFFFFFFFF81000000) == "startup_64"
    assert symbols.name_of(0xFFFFFFFF81253AB0) == "filemap_page_mkwrite"


def test_a_function_of_a_module_loaded_later_is_named(tmp_path: Path) -> None:
    directory = proc(tmp_path, RECORDED)
    symbols = Symbols(proc=directory)
    assert "ntfs_filemap_page_mkwrite" not in symbols.handlers()
    (directory / "kallsyms").write_text(RECORDED + "ffffffffc1000010 t ntfs_filemap_page_mkwrite\t[ntfs]\n")
    assert symbols.name_of(0xFFFFFFFFC1000010) == "ntfs_filemap_page_mkwrite"
    assert "ntfs_filemap_page_mkwrite" in symbols.handlers()


def test_who_refuses_faults_is_named_without_another_pass(tmp_path: Path) -> None:
    faults = "ffffffff81253ac0 T filemap_fault\nffffffffc0a51240 t ext4_dax_fault\t[ext4]\n"
    directory = proc(tmp_path, RECORDED + faults + "ffffffff81253ad0 T filemap_fault_once\n")
    symbols = Symbols(proc=directory)
    assert symbols.handlers().keys() == HANDLERS
    (directory / "kallsyms").write_text("")
    assert symbols.name_of(0xFFFFFFFF81253AC0) == "filemap_fault"
    assert symbols.name_of(0xFFFFFFFFC0A51240) == "ext4_dax_fault"
    assert symbols.name_of(0xFFFFFFFF81253AD0) == "0xffffffff81253ad0"


def test_refresh_forgets_the_names_of_modules_that_went(tmp_path: Path) -> None:
    directory = proc(tmp_path, RECORDED, EXT4)
    symbols = Symbols(proc=directory)
    assert symbols.name_of(0xFFFFFFFFC0A51230) == "ext4_page_mkwrite"
    assert not symbols.refresh()
    proc(directory, RECORDED.replace("ext4_page_mkwrite", "other_page_mkwrite"), XFS)
    assert symbols.refresh()
    assert symbols.name_of(0xFFFFFFFFC0A51230) == "other_page_mkwrite"
    assert "ext4_page_mkwrite" not in symbols.handlers()


def test_what_went_with_its_module_keeps_its_name(tmp_path: Path) -> None:
    directory = proc(tmp_path, RECORDED, EXT4)
    symbols = Symbols(proc=directory)
    assert symbols.name_of(0xFFFFFFFFC0A51230) == "ext4_page_mkwrite"
    for _ in range(2):
        proc(directory, "".join(line for line in RECORDED.splitlines(True) if "[ext4]" not in line), XFS)
        assert symbols.refresh()
        assert symbols.name_of(0xFFFFFFFFC0A51230) == "ext4_page_mkwrite"
        assert "ext4_page_mkwrite" not in symbols.handlers()
        (directory / "modules").write_text(EXT4)
        assert symbols.refresh()


def test_refresh_does_not_mind_use_counts(tmp_path: Path) -> None:
    directory = proc(tmp_path, RECORDED, EXT4 + XFS)
    symbols = Symbols(proc=directory)
    (directory / "modules").write_text(EXT4.replace(" 2 ", " 7 ") + XFS)
    assert not symbols.refresh()


def test_hidden_addresses_are_noticed_and_name_nothing(tmp_path: Path) -> None:
    hidden = Symbols(proc=proc(tmp_path, re.sub(r"(?m)^\w{16}", "0" * 16, RECORDED)))
    assert hidden.hidden
    assert set(hidden.handlers()) == HANDLERS
    assert hidden.name_of(0) == "0x0"
    assert hidden.name_of(0xFFFFFFFFC0A51230) == "0xffffffffc0a51230"


def test_shown_addresses_are_not_taken_for_hidden(tmp_path: Path) -> None:
    # The per-CPU symbols that older kernels list first are at address 0 for everybody.
    assert not Symbols(proc=proc(tmp_path, RECORDED)).hidden


@pytest.mark.parametrize("text", [None, "", "\n\n", "garbage", "ffffffff81000000\nffffffff81000000 T\n"])
def test_a_file_that_is_missing_or_broken_has_no_symbols(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        proc(tmp_path, text)
    symbols = Symbols(["T"], proc=tmp_path)
    assert symbols.handlers() == {}
    assert symbols.find("do_page_mkwrite") == []
    assert symbols.name_of(0xFFFFFFFF81000000) == "0xffffffff81000000"
    assert symbols.hidden
    assert not symbols.refresh()


@pytest.mark.parametrize(
    "line", ["ffffffff81000000 T", "ffffffff81000000 ", "ffffffff81000000 TT x", "xffffffff81000000 T"]
)
def test_a_broken_line_names_nothing(tmp_path: Path, line: str) -> None:
    (tmp_path / "kallsyms").write_text(f"ffffffff80000000 T _text\n{line}\nffffffff81000000 T whole\n")
    assert Symbols(proc=tmp_path).name_of(0xFFFFFFFF81000000) == "whole"


def test_lines_across_block_borders_are_read_whole(tmp_path: Path) -> None:
    many = "".join(f"{0xFFFFFFFF81000000 + 16 * n:016x} t f{n}_page_mkwrite\n" for n in range(30_000))
    symbols = Symbols(proc=proc(tmp_path, many))
    assert len(many) > 3 << 18
    assert len(symbols.handlers()) == 30_000
    for handler in symbols.handlers().values():
        assert handler.name == f"f{(handler.address - 0xFFFFFFFF81000000) // 16}_page_mkwrite"


ADDRESSES = st.integers(1, 30).map(lambda n: 0xFFFFFFFF81000000 + 16 * n)
NAMES = st.sampled_from(
    ["f", "ff", "f.cold", "f_page_mkwrite", "g_page_mkwrite", "g_page_mkwrite.cold", "do_page_mkwrite", "a$b"]
)
LINES = st.tuples(ADDRESSES, st.sampled_from("tTdDrwWb"), NAMES, st.sampled_from(["", "ext4", "xfs"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, max_size=40), st.booleans())
def test_look_ups_agree_with_reading_line_by_line(lines: list[tuple[int, str, str, str]], ends: bool) -> None:
    text = "\n".join(f"{a:016x} {kind} {name}" + (f"\t[{m}]" if m else "") for a, kind, name, m in lines)
    with tempfile.TemporaryDirectory() as directory:
        symbols = Symbols(["f"], proc=proc(Path(directory), text + "\n" * ends))
        for name in ("f", "ff", "f.cold", "a$b", "a"):
            assert symbols.find(name) == [Symbol(n, a, kind, m) for a, kind, n, m in lines if n == name]
        wanted = ("f_page_mkwrite", "g_page_mkwrite")
        assert set(symbols.handlers()) == {n for _, kind, n, _ in lines if kind in "tT" and n in wanted}
        if any(kind in "tT" for _, kind, _, _ in lines):
            assert not symbols.hidden
            for address in {a for a, _, _, _ in lines}:
                functions = [n for a, kind, n, _ in lines if a == address and kind in "tTwW"]
                handlers = [n for a, kind, n, _ in lines if a == address and kind in "tT" and n in wanted]
                expected = (handlers or functions or [hex(address)])[0]
                assert symbols.name_of(address) == expected


@pytest.mark.skipif(not Path("/proc/kallsyms").exists(), reason="no kallsyms here")
def test_this_kernels_symbols_are_those_that_grep_finds() -> None:
    lines = subprocess.run(
        ["grep", "-wE", "do_wp_page|vfs_read", "/proc/kallsyms"], capture_output=True, text=True, check=False
    ).stdout.splitlines()
    symbols = Symbols(["do_wp_page"])
    for name in ("do_wp_page", "vfs_read"):
        expected = [line.split()[0] for line in lines if line.split()[2] == name]
        assert [f"{symbol.address:016x}" for symbol in symbols.find(name)] == expected
