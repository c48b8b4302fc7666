"""How the cost of a call grows with the number of series: one file each, told apart by --by file."""

from __future__ import annotations

from contextlib import nullcontext
from statistics import median

from bench.faults import PLACE, workload
from tracer.model.hooks import Backend, Loss
from tracer.model.options import By, Options
from tracer.session import Session

_KEYS = (1, 100, 10_000)
_FAULTS = 10_007


def measure() -> dict[str, dict[int, float]]:
    """Instructions a fault by number of files, untraced and traced."""
    rows: dict[str, dict[int, float]] = {"nothing": {}, "mkwrite fentry, --by file": {}}
    for keys in _KEYS:
        directory = PLACE / "xfs" / str(keys)
        directory.mkdir()
        for name, costs in rows.items():
            options = Options(Backend.FENTRY, by=By.FILE, max_series=20_000, failures=False)
            with nullcontext() if name == "nothing" else Session(options) as session:
                # Once more, since the first run makes the files' series.
                for _ in range(2):
                    costs[keys] = median(workload("files", directory, keys, _FAULTS))
                if session is not None:
                    final = session.finish()
                    counted = sum(histogram.count for histogram in final.calls.values())
                    if counted != 2 * (keys + _FAULTS) or final.lost[Loss.SERIES_FULL]:
                        raise RuntimeError(f"{counted} calls counted of {2 * (keys + _FAULTS)}: {final.lost}")
        print(f"{keys} files:", {name: costs[keys] for name, costs in rows.items()}, flush=True)
    return rows
