"""A million calls a second, here and without a guest: python -m bench.synthetic.

Emulated faults do not come so fast, and this host may refuse to trace its own. So what the three hooks of a call run is
run by a system call that there is not (synthetic.c), on maps and for a session as they always are. Failures are those
of real faults: tracepoints tell of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench import rates
from bench.here import going_first, processor
from tracer import session
from tracer.export.http.answers import exposition
from tracer.export.prometheus.collector import MkwriteCollector
from tracer.kernel.btf import Btf, header
from tracer.kernel.parsing import parse_cpus
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.probes import plan
from tracer.probes.abi import SLOT_BITS
from tracer.probes.build import FILES, build, text
from tracer.probes.settings import settings
from tracer.probes.tracepoints import POSSIBLE_CPUS
from tracer.probes.tracer import HookPoint, Tracer

_SECONDS = 3
_SCRAPES_A_SECOND = 10
_NUMBER, _DEVICES, _FIRST_DEVICE = 0x6D6B00, 8, 0x7000001
_DEFINES = {
    "WAITS": "",
    "FIRST_NUMBER": _NUMBER,
    "DEVICES": _DEVICES,
    "FIRST_DEVICE": _FIRST_DEVICE,
    "HANDLER": "0xffffffff81000000ULL",
}
#: enum how of synthetic.c as enum outcome of bpf/maps.h.
_OUTCOMES = (0, 1, 2, 4)


@contextmanager
def _opened() -> Iterator[tuple[session.Session, Tracer]]:
    """A session whose calls are synthetic."""
    defines = "".join(f"#define {name} {value}\n" for name, value in _DEFINES.items())
    with Btf() as btf:
        files = (*FILES, str(Path(__file__).with_suffix(".c")))
        bpf = build(text(defines + header(btf), Backend.KPROBE, files))
    options = Options(waits=True)
    cpus = parse_cpus(POSSIBLE_CPUS.read_text())
    cells = plan._front_cells(cpus, bpf.maps["front"].value_size)
    configured = bpf.configured(
        settings(options, [], cpus=cpus, cells=cells, raced=True, handlers=False),
        {"slots": 1 << SLOT_BITS, "front": cpus * cells, "wp_counts": cpus},
        {"others": options.max_series},
    )
    place = HookPoint("synthetic", "sys_enter", Backend.KPROBE, tracepoint=True)
    tracer = Tracer({Backend.KPROBE: configured}, [], [place], None)
    result = plan.Opened(tracer, Backend.KPROBE, frozenset(), ())
    with patch.object(session, "open_tracer", return_value=result), session.Session(options) as reading:
        yield reading, tracer


def _run(threads: int) -> dict[str, Any]:
    """Calls on so many CPUs for some seconds, scraped meanwhile: how many were made and counted, and lost."""
    with _opened() as (reading, tracer):
        collector = MkwriteCollector(reading, "bench")
        command = [os.environ["WORKLOAD"], "calls", str(_NUMBER), str(_DEVICES), str(_SECONDS), str(threads)]
        scrapes = 0
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            while load.poll() is None:
                exposition(collector)
                scrapes += 1
                time.sleep(1 / _SCRAPES_A_SECOND)
            assert load.stdout is not None
            cpu_ns, *numbers = map(int, load.stdout.read().split())
        made = {
            (_FIRST_DEVICE + which // len(_OUTCOMES), _OUTCOMES[which % len(_OUTCOMES)]): number
            for which, number in enumerate(numbers)
        }
        counted: Counter[tuple[int, int]] = Counter()
        for series, histogram in tracer.maps.histograms().items():
            counted[series.dev, series.kind >> 3 & 7] += histogram.count
        final = reading.finish()
    return {
        "threads": threads,
        "made": sum(made.values()),
        "counted": counted.total(),
        "lost": final.total_lost,
        # Of each device and outcome.
        "exact": counted == made,
        "seconds": _SECONDS,
        "cpu_s": cpu_ns / 1e9,
        "scrapes": scrapes,
    }


def measure() -> list[dict[str, Any]]:
    """On one CPU, and on all."""
    rows = []
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        with going_first():  # or the threads would hardly run at the same time
            rows.append(_run(threads))
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    print(json.dumps({"here": processor() | {"synthetic": measure(), "rates": rates.measure_here()}}))
