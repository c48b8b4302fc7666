"""From C to a loaded program: the text, the cache, what the compiling child reports, and two real compilers.

BCC makes the maps of what it compiles, so the tests that compile need root. They fail where root may not use bpf(2).
"""

from __future__ import annotations

import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tracer.errors import Exit, MkwriteError
from tracer.kernel.btf import Btf, header
from tracer.model import FUNCTION_BACKENDS, Backend
from tracer.probes import build as build_module
from tracer.probes import dax, program, tracepoints
from tracer.probes.build import FILES, SLOT_BITS, SOURCES, build, cache_directory, text
from tracer.probes.program import BpfObject
from tracer.probes.source import FAILURE_FILES, WAIT_FILES, source

DATA: Final = Path(__file__).parent / "data"
NOBODY: Final = 65534
#: BPF_PROG_TYPE_TRACEPOINT: needs no kprobes in the kernel, and its verifier allows what it allows kprobe programs.
TRACEPOINT: Final = 5

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

MAP: Final = {"type": 2, "key_size": 4, "value_size": 8, "max_entries": 1, "flags": 0,
              "key": "unsigned int", "value": "unsigned long long"}  # fmt: skip
OUTPUT: Final = json.dumps(
    {"bcc": "0.31.0", "maps": {"m": MAP}, "programs": {"p": "95" + "00" * 7}, "references": {"p": [[0, "m"]]}}
)


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


# The cache. A script takes the place of the Python that compiles, says what a compiler said, and counts its runs.


class Compiler:
    """A stand-in for a Python: keeps its input, prints ``output``, ends with ``code``."""

    def __init__(self, directory: Path, output: str = OUTPUT, code: int = 0, log: str = "") -> None:
        directory.mkdir()
        self.path = directory / "python"
        self._input = directory / "input"
        self._runs = directory / "runs"
        (directory / "output").write_text(output)
        (directory / "log").write_text(log)
        self.path.write_text(
            "#!/bin/sh\n"
            f'cat > "{directory}/input"; echo >> "{self._runs}"; cat "{directory}/output"; cat "{directory}/log" >&2\n'
            f"exit {code}\n"
        )
        self.path.chmod(0o700)

    @property
    def runs(self) -> int:
        return len(self._runs.read_text()) if self._runs.exists() else 0

    @property
    def input(self) -> str:
        return self._input.read_text()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cache" / "mkwrite"
    monkeypatch.setenv("CACHE_DIRECTORY", str(directory))
    return directory


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    made = Compiler(tmp_path / "compiler")
    monkeypatch.setattr(sys, "executable", str(made.path))
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def entry(cache: Path) -> Path:
    """The only file in the cache."""
    (found,) = cache.iterdir()
    return found


def test_the_same_text_is_compiled_once(cache: Path, compiler: Compiler) -> None:
    first = build("text")
    assert first == BpfObject.from_json(json.loads(OUTPUT))
    assert compiler.input == "text"
    assert build("text") == first
    assert compiler.runs == 1
    assert build("another text") == first
    assert compiler.runs == 2


def test_the_cache_is_for_its_owner_only(cache: Path, compiler: Compiler) -> None:
    before = os.umask(0)
    try:
        build("text")
    finally:
        os.umask(before)
    assert (mode(cache), mode(entry(cache))) == (0o700, 0o600)


@pytest.mark.parametrize("bits", [0o020, 0o002])
@pytest.mark.parametrize("what", ["directory", "file"])
def test_what_others_may_write_is_not_trusted(cache: Path, compiler: Compiler, what: str, bits: int) -> None:
    build("text")
    place = cache if what == "directory" else entry(cache)
    place.chmod(mode(place) | bits)
    build("text")
    assert compiler.runs == 2


@needs_root
@pytest.mark.parametrize("what", ["directory", "file"])
def test_what_another_owns_is_not_trusted(cache: Path, compiler: Compiler, what: str) -> None:
    build("text")
    place = cache if what == "directory" else entry(cache)
    os.chown(place, NOBODY, -1)
    build("text")
    assert compiler.runs == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        OUTPUT.encode()[:-20],
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b'{"maps": [], "programs": [], "references": []}',
        b'{"maps": {"m": {}}, "programs": {}, "references": {}}',
        b'{"maps": {}, "programs": {"p": "no hex"}, "references": {}}',
        b'{"maps": {}, "programs": {}, "references": {"p": [1]}}',
        b'{"maps": {}, "programs": {}, "references": {"p": [[1]]}}',
    ],
)
def test_a_damaged_entry_is_ignored_and_replaced(cache: Path, compiler: Compiler, content: bytes) -> None:
    expected = build("text")
    entry(cache).write_bytes(content)
    assert build("text") == expected
    assert compiler.runs == 2
    assert entry(cache).read_text() == OUTPUT
    assert build("text") == expected
    assert compiler.runs == 2


@pytest.mark.parametrize("room", [0, 10])
def test_a_full_disk_is_no_error_and_leaves_nothing(cache: Path, compiler: Compiler, room: int) -> None:
    # A limit on a file's size stands for it: writing fails at the same place.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    compiler.path.write_text(f"#!/bin/sh\ncat > /dev/null; echo '{OUTPUT}'\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        found = build("text")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert found == BpfObject.from_json(json.loads(OUTPUT))
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_made_is_no_error(tmp_path: Path, cache: Path, compiler: Compiler) -> None:
    (tmp_path / "cache").write_text("a file where the directory would be")
    assert build("text") == build("text") == BpfObject.from_json(json.loads(OUTPUT))
    assert compiler.runs == 2


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cache_directory() == Path("/home/me/.cache/mkwrite")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/me/cache")
    assert cache_directory() == Path("/home/me/cache/mkwrite")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cache_directory() == Path("/var/cache/mkwrite")
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/given")
    assert cache_directory() == Path("/var/cache/given")


# What the compiling child reports.


def failure(source: str) -> MkwriteError:
    with pytest.raises(MkwriteError) as refusal:
        build(source)
    return refusal.value


def without_bcc(directory: Path) -> Path:
    """A Python that finds no distribution's packages: a real one, without its site module."""
    directory.mkdir()
    python = directory / "python"
    python.write_text(f'#!/bin/sh\nexec "{os.path.realpath(sys.executable)}" -S "$@"\n')
    python.chmod(0o700)
    return python


def test_without_bcc_anywhere_it_says_how_to_install_it(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = without_bcc(tmp_path / "bare")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(build_module, "_DISTRIBUTION", str(tmp_path / "missing"))
    error = failure("int unused;")
    assert error.code is Exit.NO_BCC
    assert "is not installed" in error.problem
    assert str(tmp_path / "missing") in error.problem
    assert "apt-get install python3-bpfcc" in error.cure
    assert not cache.exists()


def test_the_distributions_python_is_asked_where_ours_has_no_bcc(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = without_bcc(tmp_path / "bare")
    distribution = Compiler(tmp_path / "distribution")
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(build_module, "_DISTRIBUTION", str(distribution.path))
    assert build("text") == BpfObject.from_json(json.loads(OUTPUT))
    assert distribution.runs == 1


@pytest.mark.parametrize(
    ("log", "code", "meaning", "told"),
    [
        ("note\nx.c:3:1: error: first\nx.c:4:1: error: second\n", 4, Exit.COMPILE, "x.c:3:1: error: first."),
        ("one\nFailed to compile BPF module\n", 4, Exit.COMPILE, "Failed to compile BPF module."),
        ("", -11, Exit.COMPILE, "exit code -11."),
        ("LLVM ERROR: out of memory\n", -6, Exit.COMPILER_MEMORY, "out of memory"),
        ("terminate called after throwing 'std::bad_alloc'\n", -6, Exit.COMPILER_MEMORY, "out of memory"),
        ("", -9, Exit.COMPILER_MEMORY, "out of memory"),
    ],
)
def test_a_child_that_fails_is_explained(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, log: str, code: int, meaning: Exit, told: str
) -> None:
    made = Compiler(tmp_path / "failing", output="", code=code, log=log)
    if code < 0:
        made.path.write_text(made.path.read_text().replace(f"exit {code}", f"kill {code} $$"))
    monkeypatch.setattr(sys, "executable", str(made.path))
    error = failure("text")
    assert error.code is meaning
    assert told in error.problem
    assert not cache.exists()


def test_a_child_that_hangs_is_ended(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(build_module, "_TIMEOUT_S", 0.2)
    error = failure("text")
    assert error.code is Exit.COMPILE
    assert "took longer" in error.problem


# Real compiles.

HOOKS: Final = {"page_mkwrite_dirty", "page_mkwrite_entry", "page_mkwrite_return", "wp_page_return"}
WAIT_HOOKS: Final = {"in_flight", "throttle_entry", "throttle_return", "wait_entry", "wait_return"}
PROGRAMS: Final = {Backend.FENTRY: HOOKS, Backend.KPROBE: HOOKS | {"wp_page_entry"}}
MAPS: Final = {"blank", "changes", "crowded", "events", "filesystems", "front", "lost", "others", "scratch", "slots",
               "wanted", "wp_counts"}  # fmt: skip
WAIT_MAPS: Final = {"throttled", "waited", "waiting"}


@pytest.fixture(scope="module", autouse=True)
def real_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Real compiles start with an empty cache and share it, so that each text is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CACHE_DIRECTORY", str(tmp_path_factory.mktemp("objects")))
        yield


@needs_root
def test_the_first_error_of_c_is_told_with_its_file_and_line(cache: Path) -> None:
    source = text(layout("6.12"), Backend.KPROBE) + "int broken(void) { return nothing; }\nint worse = ;\n"
    error = failure(source)
    assert error.code is Exit.COMPILE
    lines = len((SOURCES / FILES[-1]).read_text().splitlines())
    assert f"{FILES[-1]}:{lines + 1}:" in error.problem
    assert "undeclared identifier 'nothing'" in error.problem
    assert "worse" not in error.problem
    assert not cache.exists()


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


#: In the order of bpf/config.h: TELL_RACED, CPUS, FRONT_MASK, SLOWER_NS, WANT_TASK, EXTRAS, WANT_CALL, BY, NAME_SERIES,
#: HANDLER_HOOKS, REASON, DIRTY_CODE.
SETTINGS: Final = {
    "plain": (1, 2, 63, 0, 0, 0, 0, 0, 0, 0, 0, 0),
    "slow calls by file, every filter": (1, 2, 63, 1_000_000, 7, 1, 56, 2, 1, 0, 0, 0),
    "handlers by process": (0, 2, 63, 1000, 0, 1, 0, 1, 1, 1, 0, 0),
    "by cgroup in a cgroup": (1, 2, 63, 0, 4, 1, 0, 3, 0, 0, 0, 0),
    "one CPU, one cell": (1, 1, 0, 0, 1, 1, 8, 0, 0, 0, 0, 0),
    "very many CPUs": (1, 1024, 1, 0, 0, 1, 16, 2, 1, 0, 0, 0),
    "waits": (1, 2, 63, 1_000_000, 0, 0, 0, 0, 0, 0, 2, 1 << 63),
}


#: Those of bpf/failure.h: INNER, ARITY, DENTRY_ARG, TASK_REGS, SIGNALS; of bpf/fault.c: FLAGS_ARG.
FAILURE_SETTINGS: Final = {16: 1, 17: 1, 18: 1, 19: 0, 20: 1, 21: 3}


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
            kind = program.RAW_TRACEPOINT if name.startswith("signal_") else TRACEPOINT
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


def test_the_child_imports_nothing_of_mkwrite() -> None:
    child = build_module.compiler.__file__
    done = subprocess.run(
        [sys.executable, "-I", "-S", child, "/nonexistent"], input=b"", capture_output=True, check=False, cwd="/"
    )
    assert done.returncode == build_module.compiler.NO_BCC
    assert done.stdout == b""
