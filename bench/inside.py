"""The part of the benchmark that runs in guests: python -m bench.inside OUTPUT PART [WORD ...].

Writes one JSON document to OUTPUT. WORD: only cases with one of these words in their names.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench import faults, keys, own, peers, rates, startup, threads


def measure_faults(words: Collection[str]) -> dict[str, Any]:
    """Every case, between two looks at untraced faults."""
    cases: dict[str, own.Attached] = {"nothing": nullcontext, **own.CASES, **peers.CASES, "nothing, again": nullcontext}
    rows: dict[str, dict[str, dict[str, float]]] = {}
    print(" " * 45 + "".join(f"{kind.replace(' write', ''):>14}" for kind in faults.KINDS))
    for name, attached in cases.items():
        if words and not name.startswith("nothing") and not any(word in name for word in words):
            continue
        started = time.monotonic()
        try:
            with attached():
                costs = faults.measure_all()
        except Exception as error:  # the others are still worth measuring
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        rows[name] = {kind: asdict(cost) for kind, cost in costs.items()}
        before = rows["nothing"]
        columns = "".join(f"{costs[kind].median - before[kind]['median']:14.0f}" for kind in costs)
        print(f"{name:45}{columns}  {time.monotonic() - started:4.0f} s", flush=True)
    print(f"{'(untraced)':45}" + "".join(f"{row['median']:14.0f}" for row in rows["nothing"].values()), flush=True)
    return rows


PARTS: dict[str, Callable[[Collection[str]], Any]] = {
    "faults": measure_faults,
    "start": lambda words: startup.measure(startup.UNTRACED | startup.TRACED),
    "keys": lambda words: keys.measure(),
    "threads": lambda words: threads.measure(),
    "rates": lambda words: rates.measure(),
}


def tools() -> dict[str, str]:
    """Versions of what is measured."""
    return {
        "bcc": faults.run("dpkg-query", "-W", "-f", "${Version}", "bpfcc-tools"),
        "bpftrace": faults.run("bpftrace", "--version").split()[-1],
        "perf": faults.run("perf", "--version").split()[-1],
        "python": platform.python_version(),
    }


def main() -> int:
    """Measure one part."""
    output, part, *words = sys.argv[1:]
    faults.prepare()
    result = {"kernel": platform.release(), "tools": tools(), part: PARTS[part](words)}
    Path(output).write_text(json.dumps(result, indent=1))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
