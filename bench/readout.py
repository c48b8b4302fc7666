"""What reading the counts costs, here and without a guest: python -m bench.readout.

The maps are real ones of this kernel, as large as a host with so many CPUs would have them, and filled as full as
they get: every front cell of every CPU is taken, and every series has an entry in the map that all CPUs share.
"""

from __future__ import annotations

import ctypes as ct
import json
import mmap
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

from bench import startup
from bench.here import going_first, processor
from tracer import session
from tracer.export.http.answers import exposition
from tracer.export.prometheus.collector import MkwriteCollector
from tracer.kernel.btf import Btf
from tracer.model.hooks import Backend
from tracer.model.options import Options
from tracer.probes import plan, program
from tracer.probes.abi import SLOT_BITS, VALID
from tracer.probes.build import build
from tracer.probes.program import BpfObject
from tracer.probes.source import source
from tracer.probes.tracer import Tracer

_CPUS = (2, 16, 256)
_KEYS = (1, 100, 1000, 10_000)
_REPEATS = 7


def _cell(cell: Any, key: int, rng: random.Random) -> Any:
    """A cell with counts in a dozen buckets, as of a filesystem with some spread."""
    made = cell()
    series = made.series
    # Devices, handlers and the low bits of kind differ; all kinds are those of calls that ended writable.
    series.handler, series.dev, series.kind = (
        0xFFFFFFFF81000000 + key % 4 * 64,
        1 + key // 16,
        VALID | key // 4 % 4,
    )
    for bucket in rng.sample(range(20, 60), 12):
        made.buckets[bucket] = rng.randrange(1, 1 << 20)
    made.sum_ns, made.max_ns = 1 << 40, 1 << 22
    return made


@contextmanager
def opened(bpf: BpfObject, cpus: int, keys: int) -> Iterator[tuple[session.Session, Callable[[], None]]]:
    """A session that reads the maps of a host with ``cpus``, and a function that counts calls of ``keys`` series."""
    places = plan._front_cells(cpus, bpf.maps["front"].value_size)
    sized = bpf.configured(
        dict.fromkeys(range(64), 0),
        {"slots": 1 << SLOT_BITS, "front": cpus * places, "wp_counts": cpus},
        {"others": max(keys, Options().max_series)},
    )
    tracer = Tracer({Backend.FENTRY: sized}, [], [], None)  # no hooks
    descriptors = tracer._state.maps
    cell = program.c_type(sized.maps["front"].value)
    rng = random.Random(keys)
    cells = [_cell(cell, key, rng) for key in range(keys)]
    taken = [
        pair
        for row in range(0, cpus * places, places)
        for pair in enumerate(rng.sample(range(keys), min(keys, places)), row)
    ]
    size = -(-sized.maps["front"].value_size // mmap.PAGESIZE) * mmap.PAGESIZE
    with mmap.mmap(descriptors["front"], size) as front, mmap.mmap(descriptors["changes"], mmap.PAGESIZE) as changes:

        def count() -> None:
            changes[0] = (changes[0] + 1) % 256 or 1  # others_counted
            for made in cells:
                made.buckets[30] += 1
                made.sum_ns += 1 << 14
                program.insert(descriptors["others"], bytes(made.series), bytes(made))
            for place, key in taken:
                front[place * ct.sizeof(cell) : (place + 1) * ct.sizeof(cell)] = bytes(cells[key])

        count()
        result = plan.Opened(tracer, Backend.FENTRY, frozenset(), ())
        with patch.object(session, "open_tracer", return_value=result), session.Session() as reading:
            yield reading, count


def _milliseconds(action: Callable[[], object], count: Callable[[], None]) -> dict[str, float]:
    """CPU time: the median of some runs, and how far they lie apart. All series are counted in between."""
    taken = []
    for _ in range(_REPEATS):
        count()
        start = time.process_time()
        action()
        taken.append((time.process_time() - start) * 1e3)
    return {"ms": statistics.median(taken), "spread_ms": max(taken) - min(taken)}


def measure(bpf: BpfObject) -> list[dict[str, Any]]:
    """Snapshots and scrapes for each number of CPUs and of series."""
    rows = []
    for cpus in _CPUS:
        for keys in _KEYS:
            with opened(bpf, cpus, keys) as (reading, count):
                collector = MkwriteCollector(reading, "bench")
                samples = sum(not line.startswith(b"#") for line in exposition(collector).splitlines())
                if len(reading.snapshot().calls) != keys:
                    raise RuntimeError(f"{keys} series were made, {len(reading.snapshot().calls)} are read")
                rows.append(
                    {
                        "cpus": cpus,
                        "keys": keys,
                        "samples": samples,
                        "snapshot": _milliseconds(reading.snapshot, count),
                        "scrape": _milliseconds(partial(exposition, collector), count),
                    }
                )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Measure, and print one JSON document."""
    with Btf() as btf:
        bpf = build(source(btf, Backend.FENTRY))
    with going_first():
        start = startup.measure(startup.UNTRACED | startup.HERE)
    print(json.dumps({"here": processor() | {"readout": measure(bpf), "start": start}}))


if __name__ == "__main__":
    main()
