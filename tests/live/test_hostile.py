"""A process made to be hard to show is counted, and shown with everything escaped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import hostile
from tests.live.guest import NO_LOSS, Filters, Options, calls, command, survived
from tracer.model.options import By
from tracer.session import Session

STORES = 101
LIMIT = Path("/proc/sys/vm/max_map_count")


@pytest.fixture
def many_mappings() -> Iterator[None]:
    """Room for those of the process, and for what its interpreter maps."""
    before = LIMIT.read_text()
    LIMIT.write_text(str(hostile.MAPPINGS + hostile.OWN))
    yield
    LIMIT.write_text(before)


def shown(*arguments: str) -> str:
    """What a command prints, which holds nothing that a terminal would act on."""
    done = subprocess.run(command(*arguments), capture_output=True, check=False, timeout=300)
    assert done.returncode in (0, 20), done.stderr  # 20: risk sees something at risk
    text = done.stdout.decode() + done.stderr.decode()
    assert all(line.isprintable() for line in text.split("\n")), text
    return text


@pytest.mark.nightly
@pytest.mark.usefixtures("many_mappings")
def test_a_hostile_process_is_counted_and_shown_escaped(mounts: dict[str, Path]) -> None:
    place = mounts["ext4"]
    process = subprocess.Popen(
        [sys.executable, "-S", hostile.__file__, str(place), str(STORES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    comm = hostile.COMM.decode("utf-8", "surrogateescape")
    path = hostile.place(place).decode("utf-8", "surrogateescape")
    try:
        assert process.stdout.read(1) == b"."
        filters = Filters(fs=("ext4",))
        with (
            Session(Options(filters=filters, by=By.PROCESS, slower_ns=0, failures=False)) as by_process,
            Session(Options(filters=filters, by=By.FILE, failures=False)) as by_file,
        ):
            process.stdin.write(b"\n")
            assert process.stdout.read(1) == b"."
            events = by_process.events(1.0)
            one, two = by_process.finish(), by_file.finish()
        assert {series.who: histogram.count for series, histogram in one.calls.items()} == {
            f"{comm}[{process.pid}]": STORES
        }
        assert {series.who: histogram.count for series, histogram in two.calls.items()} == {path: STORES}
        assert {(event.comm, event.file) for event in events} == {(comm, path)}
        assert one.lost == two.lost == NO_LOSS
        survived(f"a process with odd names and {hostile.MAPPINGS:,} mappings", by_process.backend, STORES, calls(one))

        # The others read /proc: names are escaped, and 65,530 mappings of a file are one line.
        maps = shown("maps", "--fs", "ext4")
        assert "\\x9b2J '" in maps
        (mapping,) = (
            m for m in json.loads(shown("maps", "--json", "--fs", "ext4"))["mappings"] if "owned" in m["file"]
        )
        assert mapping["mapped_bytes"] == 4096
        shown("risk")
    finally:
        process.kill()
        process.wait()
