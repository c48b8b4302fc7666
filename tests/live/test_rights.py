"""What is left of root once the exporter traces: what each option needs, and no more (docs/commands/export.md)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.live.guest import command
from tracer.host.privileges import ATTACHING, Capability

pytestmark = [pytest.mark.native, pytest.mark.nightly, pytest.mark.here]

NOBODY, DAEMON = 65534, 1
#: A port below 1024 that nobody has.
LOW = "127.0.0.1:989"
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("options", "user", "kept"),
    [
        ([], NOBODY, []),
        (["--user", "daemon"], DAEMON, []),
        (["--web.config.file", "{web}"], NOBODY, [Capability.DAC_READ_SEARCH]),
        (["--textfile", "{directory}"], NOBODY, [Capability.DAC_OVERRIDE]),
        (["--listen", LOW], NOBODY, [Capability.NET_BIND_SERVICE]),
        (["--cgroups"], NOBODY, []),
        (["--risk"], 0, ATTACHING),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value and isinstance(value[0], str) else None,
)
def test_nothing_is_left_but_what_is_needed(
    tmp_path: Path, options: list[str], user: int, kept: Sequence[Capability]
) -> None:
    (tmp_path / "web.yml").write_text("basic_auth_users: {}\n")
    filled = [option.format(web=tmp_path / "web.yml", directory=tmp_path) for option in options]
    arguments = command("export", "--backend", "tracepoint", "--listen", "127.0.0.1:0", *filled)
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            said = [process.stderr.readline() for _ in range(2)]
            assert "backend: tracepoint" in said[1], said
            threads = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/status")]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(300) == 0
    mask = f"{sum(1 << capability for capability in {Capability.BPF, *kept}):016x}"
    assert len(threads) >= 2
    for text in threads:
        assert re.findall(r"^Cap(?:Prm|Eff|Bnd):\s+(\w+)$", text, re.MULTILINE) == [mask] * 3
        assert re.findall(r"^Cap(?:Inh|Amb):\s+(\w+)$", text, re.MULTILINE) == ["0" * 16] * 2
        assert re.findall(r"^(?:Uid|Gid):\s+(.*)$", text, re.MULTILINE) == ["\t".join([str(user)] * 4)] * 2
        assert re.search(r"^Groups:\s*$", text, re.MULTILINE)


LOOK = """
from tracer.host.privileges import Capability, User, keep
from tracer.kernel.symbols import Symbols
symbols = Symbols()
keep([Capability.BPF], User.named("nobody"))
print(symbols.hidden, symbols.refresh())
"""


def test_no_module_looks_new_when_the_rights_to_see_addresses_are_gone() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "False False\n"
