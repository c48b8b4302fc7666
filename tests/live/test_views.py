"""The commands as users run them, on a live kernel: what they print is what happened."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.live.guest import command, ended, eventually, running, said, tracing, workload

PAGES = 47
EXT4 = ("--fs", "ext4")


@pytest.mark.nightly
def test_hist(mounts: dict[str, Path]) -> None:
    with tracing("hist", "--json", *EXT4) as process:
        workload("first-write", mounts["ext4"] / "hist", PAGES)
        (call,) = json.loads(ended(process))["calls"]
    assert (call["handler"], call["path"], call["latency"]["count"]) == ("ext4_page_mkwrite", "first_write", PAGES)
    assert sum(bucket[-1] for bucket in call["latency"]["buckets"]) == PAGES


@pytest.mark.nightly
def test_hist_for_people(mounts: dict[str, Path]) -> None:
    with tracing("hist", *EXT4) as process:
        workload("first-write", mounts["ext4"] / "hist2", PAGES)
        output = ended(process)
    assert f"count {PAGES} " in output
    assert "\x1b" not in output
    assert "█" in output


@pytest.mark.nightly
def test_trace(mounts: dict[str, Path]) -> None:
    with tracing("trace", "--json", "--slower", "0", "-n", str(PAGES), *EXT4) as process:
        workload("first-write", mounts["ext4"] / "trace\n\x1b[31m", 2 * PAGES)
        output, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert len(lines) == PAGES
    assert {line["file"] for line in lines} == {f"{mounts['ext4']}/trace\n\x1b[31m"}
    assert {line["outcome"] for line in lines} == {"writable"}


@pytest.mark.nightly
def test_count_until_interrupted(mounts: dict[str, Path]) -> None:
    with tracing("count", *EXT4) as process:
        workload("first-write", mounts["ext4"] / "count", PAGES)
        row = next(line.split() for line in ended(process).splitlines() if "first_wr" in line)
    assert row[-1] == str(PAGES)


def test_export_is_scraped_over_http(mounts: dict[str, Path]) -> None:
    with running("export", "--listen", "127.0.0.1:0", *EXT4) as process:
        address = said(process, "mkwrite: listening on ").split()[-1]
        workload("first-write", mounts["ext4"] / "export", PAGES)
        with urllib.request.urlopen(address, timeout=120) as response:
            text = response.read().decode()
        ended(process)
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    labels = {
        "fstype": "ext4",
        "mountpoint": str(mounts["ext4"]),
        "handler": "ext4_page_mkwrite",
        "path": "first_write",
        "outcome": "writable",
    }
    found = [
        sample.value
        for sample in samples
        if sample.name == "mkwrite_calls_total" and labels.items() <= sample.labels.items()
    ]
    assert sum(found) == PAGES
    assert [sample.value for sample in samples if sample.name == "mkwrite_up"] == [1.0]
    assert {sample.value for sample in samples if sample.name == "mkwrite_lost_total"} == {0.0}


@pytest.mark.nightly
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.usefixtures("clean_kernel")
def test_top_on_a_terminal(mounts: dict[str, Path], ending: signal.Signals) -> None:
    main, side = pty.openpty()
    process = subprocess.Popen(
        command("top", "--fs", "ext4", "-i", "1s"),
        stdin=side, stdout=side, stderr=side, env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
    )  # fmt: skip
    os.close(side)
    shown = bytearray()

    def shows(text: bytes) -> bool:
        with suppress(OSError):  # EIO: the other side is closed, and all is read
            while select.select([main], [], [], 0)[0]:
                shown.extend(os.read(main, 65536))
        return text in shown

    assert eventually(lambda: shows(b"Tracing with "))
    assert eventually(lambda: shows(b"no calls"))
    workload("first-write", mounts["ext4"] / f"top-{ending}", PAGES)
    assert eventually(lambda: shows(b"ext4_page_mkwrite"))
    process.send_signal(ending)
    assert process.wait(timeout=600) == 0
    assert shows(b"\x1b[?1049l"), "the screen was not given back"
    os.close(main)
