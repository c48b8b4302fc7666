"""What the compiling child reports, and what is said of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_compiler import Compiler, output

from tracer.errors import Exit, MkwriteError
from tracer.probes import build as build_module
from tracer.probes.build import build
from tracer.probes.program import BpfObject


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "cache"
    monkeypatch.setenv("CACHE_DIRECTORY", str(directory))
    return directory


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
    assert build("text") == BpfObject.from_json(json.loads(output()))
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
    made = Compiler(tmp_path / "failing", printed="", code=code, log=log)
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


def test_the_child_imports_nothing_of_mkwrite() -> None:
    child = build_module.compiler.__file__
    done = subprocess.run(
        [sys.executable, "-I", "-S", child, "/nonexistent"], input=b"", capture_output=True, check=False, cwd="/"
    )
    assert done.returncode == build_module.compiler.NO_BCC
    assert done.stdout == b""
