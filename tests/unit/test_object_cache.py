"""Compiled objects that are kept: when one is used again, and who could have written it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
import sys
from pathlib import Path
from typing import Final

import pytest
from stand_in_compiler import Compiler, output

from tracer.probes import build as build_module
from tracer.probes import object_cache
from tracer.probes.build import build
from tracer.probes.program import BpfObject

NOBODY: Final = 65534
OUTPUT: Final = output()

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


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


# What is compiled anew.


def test_the_same_text_is_compiled_once(cache: Path, compiler: Compiler) -> None:
    first = build("text")
    assert first == BpfObject.from_json(json.loads(OUTPUT))
    assert compiler.input == "text"
    assert build("text") == first
    assert compiler.runs == 1
    assert build("another text") == first
    assert compiler.runs == 2


@pytest.mark.parametrize("header", ["include/linux/types.h", "include/linux/added.h"])
def test_a_header_of_ours_that_changed_is_compiled(
    header: str, tmp_path: Path, cache: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = shutil.copytree(build_module.KERNEL, tmp_path / "kernel")
    monkeypatch.setattr(build_module, "KERNEL", headers)
    build("text")
    with (headers / header).open("a") as stream:
        stream.write("#define ADDED\n")
    for _ in range(2):
        build("text")
    assert compiler.runs == 2


def test_another_compiling_program_compiles(
    tmp_path: Path, cache: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("text")
    other = tmp_path / "compile.py"
    other.write_bytes(build_module._COMPILER.read_bytes() + b"#\n")
    monkeypatch.setattr(build_module, "_COMPILER", other)
    build("text")
    assert compiler.runs == 2


def test_another_bcc_or_llvm_compiles_and_one_that_is_gone_leaves_its_objects(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    libraries = [tmp_path / name for name in ("libbcc.so.0.31.0", "libLLVM.so.19.1")]
    for library in libraries:
        library.write_bytes(b"code")
    compiler = Compiler(tmp_path / "compiler", output(*libraries))
    monkeypatch.setattr(sys, "executable", str(compiler.path))
    build("text")
    before = libraries[0].stat()
    os.utime(libraries[0], ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    build("text")
    assert compiler.runs == 2
    os.utime(libraries[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    libraries[1].unlink()
    build("text")
    assert compiler.runs == 2


# Who can write it.


def test_the_cache_is_for_its_owner_only(cache: Path, compiler: Compiler) -> None:
    before = os.umask(0)
    try:
        build("text")
    finally:
        os.umask(before)
    assert (mode(cache.parent), mode(cache), mode(entry(cache))) == (0o755, 0o700, 0o600)


def place(cache: Path, what: str) -> Path:
    return {"parent": cache.parent, "directory": cache, "file": entry(cache)}[what]


@pytest.mark.parametrize("bits", [0o020, 0o002])
@pytest.mark.parametrize("what", ["parent", "directory", "file"])
def test_what_others_may_write_is_not_trusted(cache: Path, compiler: Compiler, what: str, bits: int) -> None:
    build("text")
    found = place(cache, what)
    found.chmod(mode(found) | bits)
    build("text")
    assert compiler.runs == 2


@needs_root
@pytest.mark.parametrize("what", ["parent", "directory", "file"])
def test_what_another_owns_is_not_trusted(cache: Path, compiler: Compiler, what: str) -> None:
    build("text")
    os.chown(place(cache, what), NOBODY, -1)
    build("text")
    assert compiler.runs == 2


def test_in_a_sticky_directory_others_cannot_replace_ours(cache: Path, compiler: Compiler) -> None:
    cache.parent.mkdir()
    cache.parent.chmod(0o1777)
    for _ in range(2):
        build("text")
    assert compiler.runs == 1


@needs_root
@pytest.mark.parametrize(("owner", "runs"), [(0, 1), (NOBODY, 2)])
def test_a_symbolic_link_is_followed_only_if_it_is_ours(cache: Path, compiler: Compiler, owner: int, runs: int) -> None:
    cache.parent.mkdir()
    cache.parent.chmod(0o1777)
    real = cache.parent / "real"
    real.mkdir(mode=0o700)
    cache.symlink_to("../cache/real")
    os.chown(cache, owner, owner, follow_symlinks=False)
    for _ in range(2):
        build("text")
    assert compiler.runs == runs
    assert len(list(real.iterdir())) == (owner == 0)


def test_links_without_an_end_are_no_error(cache: Path, compiler: Compiler) -> None:
    cache.parent.mkdir()
    cache.symlink_to(cache)
    build("text")
    assert compiler.runs == 1


def test_an_entry_that_is_a_link_is_not_trusted(cache: Path, compiler: Compiler) -> None:
    build("text")
    kept = entry(cache)
    moved = kept.rename(cache.parent / kept.name)
    kept.symlink_to(moved)
    build("text")
    assert compiler.runs == 2


@needs_root
def test_nothing_is_made_in_what_is_anothers(
    tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with sudo -E, and CACHE_DIRECTORY or HOME of the user's: a link there could lead anywhere."""
    target = tmp_path / "target"
    target.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    (home / "link").symlink_to(target)
    os.chown(home, NOBODY, NOBODY)
    for given in (home / "cache", home / "cache/mkwrite", home / "link/mkwrite"):
        monkeypatch.setenv("CACHE_DIRECTORY", str(given))
        build("text")
    assert compiler.runs == 3
    assert ([path.name for path in home.iterdir()], list(target.iterdir())) == (["link"], [])


def test_a_relative_path_is_not_used(tmp_path: Path, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    work = tmp_path / "work"
    (work / "cache").mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("CACHE_DIRECTORY", "cache")
    build("text")
    assert list((work / "cache").iterdir()) == []


def test_a_writer_that_was_killed_stops_no_other(cache: Path, compiler: Compiler) -> None:
    """Nor one with the same pid, as in another container."""
    build("text")
    kept = entry(cache)
    kept.rename(kept.with_suffix(f".{os.getpid()}"))
    build("text")
    assert kept.exists()
    build("text")
    assert compiler.runs == 2


# What is damaged, and what cannot be written.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        OUTPUT.encode()[:-20],
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b"{}",
        b'{"compiler": [], "maps": [], "programs": [], "references": []}',
        b'{"compiler": [], "maps": {"m": {}}, "programs": {}, "references": {}}',
        b'{"compiler": [], "maps": {}, "programs": {"p": "no hex"}, "references": {}}',
        b'{"compiler": [], "maps": {}, "programs": {}, "references": {"p": [1]}}',
        b'{"compiler": [], "maps": {}, "programs": {}, "references": {"p": [[1]]}}',
        b'{"compiler": [["/", 1]], "maps": {}, "programs": {}, "references": {}}',
        b'{"compiler": [[1, 2, 3]], "maps": {}, "programs": {}, "references": {}}',
        b'{"maps": {}, "programs": {}, "references": {}}',
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_a_damaged_entry_is_ignored_and_replaced(cache: Path, compiler: Compiler, content: bytes, named: bool) -> None:
    expected = build("text")
    kept = entry(cache)
    kept.write_bytes(content)
    if named:
        kept.rename(kept.with_stem(f"{kept.stem.partition('-')[0]}-{object_cache.digest(content)}"))
    assert build("text") == expected
    assert compiler.runs == 2
    assert kept.read_text() == OUTPUT
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
    assert object_cache.directory() == Path("/home/me/.cache/mkwrite")
    monkeypatch.setenv("XDG_CACHE_HOME", "/home/me/cache")
    assert object_cache.directory() == Path("/home/me/cache/mkwrite")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert object_cache.directory() == Path("/var/cache/mkwrite")
    monkeypatch.setenv("CACHE_DIRECTORY", "/var/cache/given")
    assert object_cache.directory() == Path("/var/cache/given")


def test_a_user_without_a_home_has_no_cache(compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    assert not object_cache.directory().is_absolute()
    assert build("text") == BpfObject.from_json(json.loads(OUTPUT))
