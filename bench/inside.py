"""The part of the benchmark that runs in the guest: python -m bench.inside OUTPUT [PART ...]."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

from bench import faults, own, peers


def main() -> int:
    """Measure, and write one JSON document."""
    output = Path(sys.argv[1])
    wanted = sys.argv[2:]
    faults.prepare()
    cases: dict[str, own.Attached] = {"nothing": nullcontext, **own.CASES, **peers.CASES, "nothing, again": nullcontext}
    rows = {}
    for name, attached in cases.items():
        if wanted and not name.startswith("nothing") and not any(word in name for word in wanted):
            continue
        started = time.monotonic()
        try:
            with attached():
                opened = time.monotonic()
                costs = faults.measure_all()
        except Exception as error:  # the others are still worth measuring
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        rows[name] = {kind: asdict(cost) for kind, cost in costs.items()}
        before = rows["nothing"]
        added = "  ".join(f"{costs[k].median - before[k]['median']:8.0f}" for k in costs)
        print(f"{name:40} {added}   ({opened - started:.1f} s + {time.monotonic() - opened:.1f} s)", flush=True)
    output.write_text(json.dumps({"kernel": platform.release(), "faults": rows}, indent=1))
    print("untraced: " + ", ".join(f"{k} {v['median']:.0f}±{v['spread']:.0f}" for k, v in rows["nothing"].items()))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
