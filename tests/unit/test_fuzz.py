"""Whatever comes in: parsers answer or refuse in words, and the command line never shows a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import pytest
from click.testing import CliRunner
from fake_session import FakeSession, fake_module
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracer.cli.guard import guarded
from tracer.cli.main import cli
from tracer.errors import Exit, MkwriteError, UsageError
from tracer.export.http.webconfig import Users, WebConfig, WebFiles
from tracer.host import processes
from tracer.host.mappings import parse as parse_maps
from tracer.kernel import features
from tracer.kernel.symbols import Symbols
from tracer.probes import build
from tracer.probes.program import BpfObject
from tracer.text import parse_duration

SOME = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

#: Bytes as they are in /proc files, and what breaks them: other separators, other digits, NULs, broken UTF-8.
PIECES = st.sampled_from(
    [b" ", b"\n", b"\t", b"-", b":", b"\0", b"\r", b"\\012", b"\\777", b"\xff\xfe", b"\xe2\x80\xa8", b"0", b"f" * 16,
     b"7f0000000000-7f0000001000 rw-s 00000000 fd:01 7 ", b"ffffffff81000000 T _text",
     b"ffffffffc0000000 t ext4_page_mkwrite",
     b"[ext4]", b"ext4 1 2 - Live 0x", "\u0663".encode(), b"9" * 400, b"36 35 98:0 / /mnt rw - ext4 /dev/sda rw"]
)  # fmt: skip
TEXT = st.lists(PIECES | st.binary(max_size=12), max_size=40).map(b"".join)


@SOME
@given(kallsyms=TEXT, modules=TEXT, address=st.integers(0, 2**64 - 1))
def test_kallsyms(kallsyms: bytes, modules: bytes, address: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        proc = Path(directory)
        (proc / "kallsyms").write_bytes(kallsyms)
        (proc / "modules").write_bytes(modules)
        symbols = Symbols(["do_page_mkwrite"], proc=proc)
        assert all(handler.name for handler in symbols.handlers().values())
        symbols.find("ext4_page_mkwrite")
        assert symbols.name_of(address)
        (proc / "modules").write_bytes(modules[::-1])
        symbols.refresh()
        assert isinstance(symbols.hidden, bool)


@SOME
@given(TEXT)
def test_maps(text: bytes) -> None:
    assert all(mapping.inode > 0 for mapping in parse_maps(text, os.getpid()))


@SOME
@given(TEXT.map(lambda raw: raw.decode("utf-8", "surrogateescape")))
def test_what_the_kernel_says_of_itself(text: str) -> None:
    features.parse_lockdown(text)
    features.parse_memlock(text)
    features.parse_mounts(text, "tracefs")
    features.parse_traceable(text, ["do_page_mkwrite"])
    features.parse_blacklist(text)
    features.parse_capabilities(text)


@SOME
@given(TEXT)
def test_processes(text: bytes) -> None:
    list(processes._fields(text))
    processes._cgroup(text)
    processes.container(os.fsdecode(text))


@SOME
@given(st.text(alphabet="0123456789.smhdnu µ-+e_∞٣", max_size=12) | st.text(max_size=8))
def test_durations(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_duration(text) >= 0


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_KEYS = st.sampled_from(
    ["tls_server_config", "basic_auth_users", "cert_file", "key_file", "client_auth_type", "client_ca_file",
     "client_allowed_sans", "min_version", "max_version", "http_server_config", "root"]
)  # fmt: skip
_TREES = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4))


@SOME
@given(_TREES.map(lambda tree: json.dumps(tree).encode()) | TEXT)
def test_a_web_configuration_is_understood_or_refused(text: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(text)
        file.flush()
        try:
            WebConfig.of(WebFiles.read(Path(file.name)))
        except UsageError as error:
            assert error.code == Exit.USAGE


@SOME
@given(st.text(max_size=40) | st.binary(max_size=40).map(lambda raw: "Basic " + os.fsdecode(raw)))
def test_who_has_no_right_password_stays_outside(authorization: str) -> None:
    assert not Users({"prometheus": "$2b$04$abcdefghijklmnopqrstuuxcN2HeKCxN5tqWmxqQ8vGwE0YNmKPHK"}).allows(
        authorization
    )


#: A small object as the compiler gives it.
OBJECT: dict[str, Any] = {
    "bcc": "0.26.0",
    "compiler": [],
    "maps": {
        "m": {"type": 1, "key_size": 4, "value_size": 8, "max_entries": 1, "flags": 0, "key": "int", "value": "char"}
    },
    "programs": {"p": "b700000000000000" "9500000000000000"},
    "references": {"p": []},
}  # fmt: skip


@SOME
@given(data=st.data())
def test_a_damaged_cache_entry_is_compiled_again(data: st.DataObject, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = json.dumps(OBJECT).encode()
    kind = data.draw(st.sampled_from(["cut", "flip", "other", "json"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = {
        "cut": lambda: whole[:at],
        "flip": lambda: whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :],
        "other": lambda: data.draw(TEXT),
        "json": lambda: json.dumps(data.draw(_TREES)).encode(),
    }[kind]()
    with tempfile.TemporaryDirectory() as directory:
        monkeypatch.setenv("CACHE_DIRECTORY", directory)
        compiled = []
        monkeypatch.setattr(build, "_compile", lambda source: compiled.append(source) or whole)
        build.build("int main;")
        (kept,) = Path(directory).iterdir()
        kept.write_bytes(damaged)
        found = build.build("int main;")
    if damaged != whole:
        assert len(compiled) == 2, damaged
    assert found == BpfObject.from_json(OBJECT)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every session is a made-up one that ends at once; nothing listens, writes metrics, gives up rights or is run."""
    monkeypatch.setitem(sys.modules, "tracer.session", fake_module())
    FakeSession.opened.clear()
    monkeypatch.setattr("tracer.cli.run.until", lambda _: time.monotonic_ns() + 1_000_000)
    monkeypatch.setattr("tracer.cli.child.run_command", lambda *_, **__: 0)
    # The runner's standard output ("--output -") is no file.
    monkeypatch.setattr("tracer.cli.count._empty", lambda _: None)
    monkeypatch.setattr("tracer.cli.export._give_up_rights", lambda *_: None)
    monkeypatch.setattr("tracer.export.http.process.HttpProcess", MagicMock())
    monkeypatch.setattr("tracer.export.prometheus.textfile._replace", lambda *_: None)
    monkeypatch.setattr("tracer.export.prometheus.textfile.Textfile.remove", lambda _: None)
    # Doctor looks at this machine, which takes its time, once.
    monkeypatch.setattr("tracer.doctor.checkup.read", cache(features.read))
    yield


_GROUP = click.Context(cli)
_COMMANDS = cli.list_commands(_GROUP)
#: Any text but NUL, at which execve(2) ends an argument.
_WORDS = st.text(st.characters(exclude_characters="\0"), max_size=6) | st.sampled_from(
    [*_COMMANDS, "--json", "--once", "-d", "1ms", "0s", "-1", "1", "ext4", "/", "process", "p99", "--help", "-h",
     "--version", "--", "true", "bash", "/dev/null/x", "[::]:x", "127.0.0.1:0", "/nonexistent", "", "\x1b[31m",
     "\udcff", "a\nb", "9" * 20, "NaN", "\u0663s", "%", "nobody", "-"]
)  # fmt: skip


def _option(option: click.Option) -> st.SearchStrategy[list[str]]:
    """An option, with a value that it may take or any other."""
    if option.is_flag:
        return st.just([option.opts[-1]])
    values = st.sampled_from(option.type.choices) | _WORDS if isinstance(option.type, click.Choice) else _WORDS
    return values.map(lambda value: [option.opts[-1], value])


def _lines(name: str) -> st.SearchStrategy[list[str]]:
    """Command lines of a command, or of what is none."""
    command = cli.get_command(_GROUP, name)
    options = [each for each in command.params if isinstance(each, click.Option)] if command else []
    # --remote may have to wait for a server.
    parts = (_option(each) for each in options if each.name != "remote")
    part = st.one_of(*parts, _WORDS.map(lambda word: [word]))
    return st.lists(part, max_size=4).map(lambda parts: [name, *chain.from_iterable(parts)])


@settings(parent=SOME, max_examples=150)
@given(st.sampled_from([*_COMMANDS, "", "nonsense"]).flatmap(_lines))
@pytest.mark.usefixtures("traced")
def test_no_command_line_ends_in_a_traceback(words: list[str]) -> None:
    runner = CliRunner()
    with runner.isolated_filesystem():  # some words are the name of a file to write
        done = runner.invoke(cli, words)
    assert done.exception is None or isinstance(done.exception, (SystemExit, MkwriteError)), done.exception
    assert "Traceback" not in done.output
    assert 0 <= done.exit_code < 128


def test_an_error_that_nobody_foresaw_is_said_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fails() -> int:
        raise RuntimeError("odd \x1b[31m\n")

    assert guarded(fails) == Exit.FAILED
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "\x1b" not in said


def test_a_cache_that_others_can_write_is_not_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CACHE_DIRECTORY", str(tmp_path / "cache"))
    compiled = []
    monkeypatch.setattr(build, "_compile", lambda source: compiled.append(source) or json.dumps(OBJECT).encode())
    build.build("one")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.chmod(kept.stat().st_mode | stat.S_IWOTH)
    build.build("one")
    assert compiled == ["one", "one"]
