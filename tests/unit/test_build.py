"""From C to a loaded program: the text, BCC's compiler, and this kernel's verifier.

BCC makes the maps of what it compiles, so the tests that compile need root. They fail where root may not use bpf(2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tracer.errors import Exit, MkwriteError
from tracer.kernel.btf import Btf, header
from tracer.model.hooks import FUNCTION_BACKENDS, Backend
from tracer.probes import dax, program, tracepoints
from tracer.probes.abi import SLOT_BITS, Setting
from tracer.probes.build import FILES, SOURCES, build, text
from tracer.probes.program import BpfObject
from tracer.probes.source import FAILURE_FILES, WAIT_FILES, source

DATA: Final = Path(__file__).parent / "data"
#: BPF_PROG_TYPE_TRACEPOINT: needs no kprobes in the kernel, and its verifier allows what it allows kprobe programs.
TRACEPOINT: Final = 5

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def layout(kernel: str) -> str:
    with Btf(DATA / f"{kernel}.btf") as btf:
        return header(btf)


# The text.


@pytest.mark.parametrize("backend", FUNCTION_BACKENDS)
def test_the_text_is_the_layout_and_then_every_file_whole_with_its_name(backend: Backend) -> None:
    source = text("struct layout;\n", backend)
    before, *parts = source.split('#line 1 "')
    assert f"#define {backend.name}\n" in before
    assert before.endswith("struct layout;\n")
    assert [part.split('"\n', 1) for part in parts] == [[name, (SOURCES / name).read_text()] for name in FILES]


def test_every_c_file_is_part_of_the_text() -> None:
    files = {*FILES, *FAILURE_FILES, *WAIT_FILES, dax.FILE, *tracepoints.FILES}
    assert files == {file.name for file in SOURCES.glob("*.[ch]")}


# Real compiles.

HOOKS: Final = {
    "filesystem_ended", "page_mkwrite_dirty", "page_mkwrite_entry", "page_mkwrite_return", "wp_page_return",
}  # fmt: skip
WAIT_HOOKS: Final = {"freeze_entry", "freeze_return", "in_flight", "thaw_entry", "thaw_return", "throttle_entry",
                     "throttle_return", "wait_entry", "wait_return"}  # fmt: skip
PROGRAMS: Final = {Backend.FENTRY: HOOKS, Backend.KPROBE: HOOKS | {"wp_page_entry"}}
MAPS: Final = {"begun", "blank", "changes", "crowded", "events", "front", "fstypes", "lost", "numbers", "others",
               "scratch", "slots", "wanted", "wp_counts"}  # fmt: skip
WAIT_MAPS: Final = {"freezes", "freezing", "kept_series", "throttled", "waited", "waiting"}


@pytest.fixture(scope="module", autouse=True)
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Real compiles start with an empty cache and share it, so that each text is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_DIRECTORY", str(tmp_path_factory.mktemp("objects")))
        yield


@needs_root
def test_the_first_error_of_c_is_told_with_its_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    source = text(layout("6.12"), Backend.KPROBE) + "int broken(void) { return nothing; }\nint worse = ;\n"
    with pytest.raises(MkwriteError) as refusal:
        build(source)
    error = refusal.value
    assert error.code is Exit.COMPILE
    lines = len((SOURCES / FILES[-1]).read_text().splitlines())
    assert f"{FILES[-1]}:{lines + 1}:" in error.problem
    assert "undeclared identifier 'nothing'" in error.problem
    assert "worse" not in error.problem
    assert not (tmp_path / "cache").exists()


@needs_root
@pytest.mark.parametrize("backend", FUNCTION_BACKENDS)
@pytest.mark.parametrize("kernel", ["5.10", "6.12", "7.3"])
@pytest.mark.parametrize("waits", [False, True])
def test_every_program_and_map_comes_out_of_the_compiler(waits: bool, kernel: str, backend: Backend) -> None:
    define, more = ("#define WAITS\n", WAIT_FILES) if waits else ("", ())
    compiled = build(text(define + layout(kernel), backend, (*FILES, *more)))
    assert set(compiled.programs) == PROGRAMS[backend] | (WAIT_HOOKS if waits else set())
    assert set(compiled.maps) == (
        MAPS | (WAIT_MAPS if waits else set()) | ({"wp_crowded", "wp_slots"} if backend is Backend.KPROBE else set())
    )
    assert set(compiled.references) == set(compiled.programs)
    for name, references in compiled.references.items():
        code = compiled.programs[name]
        assert {target for _, target in references} <= set(compiled.maps)
        # A load of a map's descriptor, at each place named and at no other.
        loads = [at for at in range(len(code) // 8) if code[8 * at] == 0x18 and code[8 * at + 1] >> 4 == 1]
        assert [at for at, _ in references] == loads


#: The settings of a session in their order, and two of a hook on waits.
SETTINGS: Final = {
    "plain": (1, 2, 63, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    "slow calls by file, every filter": (1, 2, 63, 1_000_000, 7, 1, 56, 2, 1, 0, 0, 0),
    "handlers by process": (0, 2, 63, 1000, 0, 1, 0, 1, 1, 1, 0, 0),
    "by cgroup in a cgroup": (1, 2, 63, 0, 4, 1, 0, 3, 0, 0, 0, 0),
    "one CPU, one cell": (1, 1, 0, 0, 1, 1, 8, 0, 0, 0, 0, 0),
    "as many cells as one value of a map may hold": (1, 61, 63, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    "very many CPUs": (1, 1024, 1, 0, 0, 1, 16, 2, 1, 0, 0, 0),
    "waits": (1, 2, 63, 1_000_000, 0, 0, 0, 0, 0, 0, 2, 1 << 63),
}


#: Of hooks on failures.
FAILURE_SETTINGS: Final = {
    Setting.INNER: 1, Setting.ARITY: 1, Setting.DENTRY_ARG: 1, Setting.TASK_REGS: 0, Setting.SIGNALS: 1,
    Setting.FLAGS_ARG: 3,
}  # fmt: skip


@needs_root
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("failures", [False, True])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_this_kernels_verifier_takes_every_program(settings: tuple[int, ...], failures: bool, waits: bool) -> None:
    with Btf() as btf:  # this kernel's own: programs call its functions by their ids
        compiled = build(source(btf, Backend.KPROBE, failures, waits))
    cpus, mask = settings[1:3]
    rows = {"slots": 1 << SLOT_BITS, "front": cpus * (mask + 1), "wp_counts": cpus}
    configured = compiled.configured({**dict(enumerate(settings)), **FAILURE_SETTINGS}, rows, {})
    opened = program.create_maps(configured.maps)
    try:
        for name in configured.programs.keys() - {"in_flight"}:  # an iterator is a tracing program
            raw = name.startswith(("signal_", "writeback_", "allocation_", "request_", "look_"))
            kind = program.RAW_TRACEPOINT if raw else TRACEPOINT
            os.close(program.load(configured, name, opened, kind))
    finally:
        for descriptor in opened.values():
            os.close(descriptor)


@needs_root
@pytest.mark.parametrize("backend", FUNCTION_BACKENDS)
def test_no_setting_is_left_unwritten(backend: Backend) -> None:
    compiled = build(text(layout("6.12"), backend))
    mark = (0x6D6B7772).to_bytes(4, "little")
    assert any(mark in code for code in compiled.programs.values())
    configured = compiled.configured(dict(enumerate(SETTINGS["plain"])), {}, {})
    assert not any(mark in code for code in configured.programs.values())


@needs_root
def test_a_program_that_the_verifier_refuses_says_why() -> None:
    # r0 is read before anything was written to it.
    bad = BpfObject({}, {"bad": bytes([0x95]) + bytes(7)}, {"bad": ()})
    with pytest.raises(OSError) as refusal:
        program.load(bad, "bad", {}, TRACEPOINT)
    assert refusal.value.strerror == os.strerror(refusal.value.errno or 0)
    assert "R0 !read_ok" in str(refusal.value.filename)
