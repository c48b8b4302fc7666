"""How the cost of a call grows with threads that fault at the same time, on a guest with several CPUs."""

from __future__ import annotations

import os
from contextlib import nullcontext
from statistics import median

from bench.faults import KINDS, workload
from tracer.model.hooks import FUNCTION_BACKENDS
from tracer.model.options import Options
from tracer.session import Session

_SECONDS, _ROUNDS = 0.5, 3


def measure() -> dict[str, dict[int, list[float]]]:
    """Faults a second untraced, divided by those traced, for each round: by backend and number of threads.

    All CPUs share one count of instructions, which is the clock: the rate says how many instructions a fault took of
    all CPUs together, those spent spinning on a lock included. Caches are not emulated.
    """
    path = KINDS["ext4 first write"][1]
    rows: dict[str, dict[int, list[float]]] = {}
    for backend in FUNCTION_BACKENDS:
        name = f"mkwrite {backend}"
        rows[name] = {}
        for number in range(1, (os.cpu_count() or 1) + 1):
            ratios = []
            for _ in range(_ROUNDS):
                made = []
                for traced in (False, True):
                    with Session(Options(backend, failures=False)) if traced else nullcontext():
                        made += workload("storm", "first-write", path, _SECONDS, number)
                ratios.append(made[0] / made[1])
            rows[name][number] = ratios
            print(
                f"{name}, {number} threads: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True
            )
    return rows
