#!/usr/bin/env python3
"""What takes long, and so is outside of CI: tests/live/measure.py [SERIES].

A soak: threads store at full rate for the whole time, while a session counts and is read every second, as by
``mkwrite top``. Counts are exact at the end, and memory flat.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def soak(seconds: float) -> int:
    """In the guest: the session, and the threads whose own count is the truth."""
    from tests.live.growth import keeps_growing
    from tests.live.guest import WORKLOAD, FaultPath, Filters, Options, calls, mount
    from tracer.session import Session

    path = mount("ext4") / "soak"
    resident: list[int] = []
    with Session(Options(filters=Filters(fs=("ext4",)), failures=False)) as session:
        storm = subprocess.Popen([WORKLOAD, "storm", str(path), str(seconds), "3"], stdout=subprocess.PIPE)
        began = time.monotonic()
        while storm.poll() is None:
            session.snapshot()
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4)
            if len(resident) % 60 == 0:
                print(f"{time.monotonic() - began:.0f} s: {resident[-1]} KiB", file=sys.stderr, flush=True)
            time.sleep(1)
        assert storm.stdout is not None
        made = int(storm.stdout.read())
        final = session.finish()
        backend = session.backend
    counted = calls(final, path=FaultPath.FIRST_WRITE)
    settled = resident[len(resident) // 10 :]
    row = {
        "fault": f"soak of {seconds:.0f} s at full rate, memory {settled[0]} KiB, then {settled[-1]} KiB",
        "backend": backend,
        "made": made,
        "counted": counted,
        "lost": final.total_lost,
        "kernel": os.uname().release,
    }
    print(f"SURVIVED {json.dumps(row)}", flush=True)
    return 0 if made == counted and not keeps_growing(settled) else 1


def main() -> int:
    """Boot a guest and measure there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("series", nargs="?", default="6.12")
    parser.add_argument("--seconds", type=float, default=3600.0, help="of the storm (default: an hour)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        return soak(options.seconds)

    from tests.vm.guest import run_guest
    from tests.vm.kernels import get_kernel
    from tests.vm.prepare import prepare

    kernel = get_kernel(options.series)
    with tempfile.TemporaryDirectory(prefix="mkwrite-soak-") as share:
        source, program = Path(__file__).with_name("workload.c"), Path(share, "workload")
        subprocess.run(["cc", "-O2", "-static", "-pthread", "-o", program, source], check=True)
        prepare(kernel.image, Path(share, "cache"))
        result = run_guest(
            kernel,
            [sys.executable, __file__, "--inside", "--seconds", str(options.seconds)],
            timeout=options.seconds + 600,
            cwd=ROOT,
            env={
                "CACHE_DIRECTORY": str(Path(share, "cache")),
                "WORKLOAD": str(program),
                "PYTHONPATH": str(ROOT),
            },
            share=[share, ROOT],
            stdout=lambda data: print(data.decode(errors="replace"), end="", flush=True),
            stderr=lambda data: print(data.decode(errors="replace"), end="", file=sys.stderr, flush=True),
        )
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
