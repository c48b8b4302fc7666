"""What is left of root once the exporter traces (docs/commands/export.md): what each option needs, and no more."""

from __future__ import annotations

import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import pytest

from tests.certificates import TLS, make_keys
from tests.live.answering import USER, answering, holds_nothing
from tests.live.guest import command
from tracer.host.privileges import ATTACHING
from tracer.model.capabilities import Capability

pytestmark = [pytest.mark.native, pytest.mark.nightly, pytest.mark.here]

DAEMON = pwd.getpwnam("daemon")
#: A port below 1024 that nobody has.
LOW = "127.0.0.1:989"
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def exporter(*options: str) -> Iterator[int]:
    """One that listens; its pid."""
    arguments = command("export", "--backend", "tracepoint", "--listen", "127.0.0.1:0", *options)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = [process.stderr.readline() for _ in range(2)]
            assert "backend: tracepoint" in said[1], said
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(300) == 0


@pytest.mark.parametrize(
    ("options", "user", "kept"),
    [
        ([], USER, []),
        (["--user", "daemon"], DAEMON, []),
        (["--web.config.file", "{web}"], USER, [Capability.DAC_READ_SEARCH]),
        (["--textfile", "{directory}"], USER, [Capability.DAC_OVERRIDE]),
        (["--listen", LOW], USER, []),
        (["--cgroups"], USER, []),
        (["--risk"], USER, ATTACHING),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else None,
)
def test_nothing_is_left_but_what_is_needed_and_nothing_at_all_where_http_is_answered(
    tmp_path: Path, options: list[str], user: pwd.struct_passwd, kept: Sequence[Capability]
) -> None:
    make_keys(tmp_path)
    password = bcrypt.hashpw(b"builder", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yml").write_text(f"{TLS}basic_auth_users: {{bob: '{password}'}}\n")
    (tmp_path / "web.yml").chmod(0o600)
    with exporter(*(option.format(web=tmp_path / "web.yml", directory=tmp_path) for option in options)) as pid:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
        holds_nothing(answering(pid), user)
    mask = f"{sum(1 << capability for capability in {Capability.BPF, *kept}):016x}"
    assert len(threads) >= 2
    for text in threads:
        assert re.findall(r"^Cap(?:Prm|Eff|Bnd):\s+(\w+)$", text, re.MULTILINE) == [mask] * 3
        assert re.findall(r"^Cap(?:Inh|Amb):\s+(\w+)$", text, re.MULTILINE) == ["0" * 16] * 2


ATTACH = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
attached = libc.ptrace(16, int(sys.argv[1]), None, None)  # PTRACE_ATTACH
print(attached, os.strerror(ctypes.get_errno()))
"""


def test_no_other_process_of_its_user_looks_into_the_one_that_answers() -> None:
    other = ["setpriv", f"--reuid={USER.pw_uid}", f"--regid={USER.pw_gid}", "--clear-groups", "--"]
    with exporter() as pid:
        process = answering(pid)
        done = subprocess.run(
            [*other, "/usr/bin/python3", "-c", ATTACH, process.name], capture_output=True, text=True, check=True
        )
        assert done.stdout == "-1 Operation not permitted\n"
        for secret in ("mem", "environ", "maps", "fd"):
            read = subprocess.run(
                [*other, "ls" if secret == "fd" else "cat", process / secret], capture_output=True, check=False
            )
            assert read.returncode != 0 and b"Permission denied" in read.stderr, secret


LOOK = """
from tracer.host.privileges import keep
from tracer.model.capabilities import Capability
from tracer.kernel.symbols import Symbols
symbols = Symbols()
keep([Capability.BPF])
print(symbols.hidden, symbols.refresh())
"""


def test_no_module_looks_new_when_the_rights_to_see_addresses_are_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "False False\n"
