"""Runs in a guest, under the Python of a release's root: every step of mkwrite with exact counts, one JSON record.

Arguments: the workload program, an ext4 with room, an ext4 that is full but for its inodes. Standard library only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

MKWRITE = "/opt/mkwrite/bin/mkwrite"
CALLS = {"fentry": 101, "kprobe": 103}


def run(*arguments: str, code: int = 0) -> str:
    """Run mkwrite; what it printed."""
    done = subprocess.run((MKWRITE, *arguments), capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{arguments}: exit {done.returncode}, {done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def doctor() -> dict[str, Any]:
    """What works here."""
    found = json.loads(run("doctor", "--json"))
    return {"backend": found["backend"]}


def count(workload: str, place: str, backend: str) -> dict[str, Any]:
    """Exactly what the workload made, and nothing lost."""
    made = CALLS[backend]
    out = f"/tmp/{backend}.json"
    run("count", "--json", "-o", out, "--fs", "ext4", "--backend", backend, "--", workload, "first-write",
        f"{place}/{backend}", str(made))  # fmt: skip
    with open(out) as stream:  # noqa: PTH123
        record = json.load(stream)
    counted = sum(call["latency"]["count"] for call in record["calls"] if call["outcome"] == "writable")
    lost = sum(record["lost"].values())
    assert (counted, lost) == (made, 0), record
    return {"made": made, "counted": counted, "lost": lost}


def sigbus(workload: str, full: str) -> dict[str, Any]:
    """A refused store, with its errno."""
    printed = run("sigbus", "--json", "--", workload, "first-write", f"{full}/victim", "7", code=128 + 7)
    (failure,) = (json.loads(line) for line in printed.splitlines())
    assert failure["errno"] == "ENOSPC", failure
    return {"errno": failure["errno"], "file": failure["file"]}


def top() -> dict[str, Any]:
    """One table."""
    printed = run("top", "--once", "-i", "2s")
    assert "calls" in printed.lower(), printed
    return {}


def export() -> dict[str, Any]:
    """One set of metrics."""
    printed = run("export", "--once", "-d", "1s")
    assert "\nmkwrite_calls_total" in printed or "# TYPE mkwrite" in printed, printed
    return {"lines": len(printed.splitlines())}


def main() -> int:
    """Do every step; print one JSON record."""
    workload, place, full = sys.argv[1:]
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "doctor": doctor,
        "count fentry": lambda: count(workload, place, "fentry"),
        "count kprobe": lambda: count(workload, place, "kprobe"),
        "sigbus": lambda: sigbus(workload, full),
        "top": top,
        "export": export,
    }
    python = ".".join(map(str, sys.version_info[:3]))
    bcc = subprocess.run(
        ["/usr/bin/python3", "-c", "import bcc; print(bcc.__version__)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    record: dict[str, Any] = {"python": python, "bcc": bcc, "steps": {}}
    failed = False
    for name, step in steps.items():
        began = time.monotonic()
        try:
            result = {"ok": True, **step()}
        except Exception as error:
            result = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            failed = True
        result["seconds"] = round(time.monotonic() - began)
        print(f"{name}: {result}", file=sys.stderr, flush=True)
        record["steps"][name] = result
    print(json.dumps(record))
    return failed


if __name__ == "__main__":
    sys.exit(main())
