"""What is counted a second without a loss, of real faults: calls, and failures.

In a guest an instruction is a nanosecond. Here, failures are told of by tracepoints.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.faults import PLACE, run, workload
from tracer.model.calls import FaultPath, Outcome
from tracer.model.failures import Failure
from tracer.model.hooks import FUNCTION_BACKENDS, Backend
from tracer.model.options import Filters, Options
from tracer.session import Session

_SECONDS = 1
#: A prime.
_REFUSALS = 30_011
_READ_EVERY_S = 0.1


def _row(what: str, backend: Backend, a_second: float, **numbers: int) -> dict[str, Any]:
    row = {"what": what, "backend": str(backend), "a_second": a_second, **numbers}
    print(json.dumps(row), file=sys.stderr, flush=True)
    return row


def _calls(backend: Backend) -> dict[str, Any]:
    """First writes to one page, as fast as they come."""
    with Session(Options(backend, Filters(fs=("ext4",)), failures=False)) as session:
        (made,) = workload("storm", "first-write", PLACE / "ext4/rate", _SECONDS, 1)
        final = session.finish()
    counted = sum(h.count for series, h in final.calls.items() if series.path is FaultPath.FIRST_WRITE)
    return _row("calls", backend, made / _SECONDS, made=made, counted=counted, lost=final.total_lost)


def _refusals(backend: Backend, full: Path) -> dict[str, Any]:
    """SIGBUS of one process after another, each caught, read as the exporter reads them."""
    told: list[Failure] = []
    command = [os.environ["WORKLOAD"], "refused", str(full / "file"), str(_REFUSALS)]
    with Session(Options(backend)) as session:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as load:
            while load.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    load.wait(_READ_EVERY_S)
                told += session.failures()
                session.snapshot()
            assert load.stdout is not None
            ns = int(load.stdout.read())
        final = session.finish()
        told += session.failures()
        of_process = sum(number for burst, number in session.bursts().items() if burst.tgid == load.pid)
    numbers = {
        "counted": sum(final.failures.values()),
        "causes": len(final.failures),
        "of_process": of_process,
        "calls": sum(h.count for series, h in final.calls.items() if series.outcome is Outcome.SIGBUS),
    }
    told = [failure for failure in told if failure.pid == load.pid]  # others of this machine may be refused, too
    ordinals = [failure.ordinal for failure in told]
    if ordinals != sorted(set(ordinals)) or not all(one.signal and (one.errno or one.inferred) for one in told):
        raise RuntimeError(f"what was told of one by one does not fit: {ordinals}")
    return _row(
        "failures", backend, _REFUSALS / ns * 1e9, made=_REFUSALS, **numbers, told=len(told), lost=final.total_lost
    )


@contextmanager
def _full() -> Iterator[Path]:
    """A filesystem without a free block."""
    with tempfile.TemporaryDirectory(prefix="mkwrite-full-") as directory:
        place, image = Path(directory, "full"), Path(directory, "image")
        place.mkdir()
        with image.open("wb") as stream:
            stream.truncate(32 << 20)
        run("mkfs.ext4", "-q", str(image))
        run("mount", "-o", "loop", str(image), str(place))
        try:
            (place / "file").touch()
            with (place / "filler").open("wb", buffering=0) as stream:
                for size in (1 << 20, 4096):
                    with suppress(OSError):
                        while True:
                            stream.write(bytes(size))
                os.fsync(stream.fileno())
            yield place
        finally:
            run("umount", str(place))


def measure() -> list[dict[str, Any]]:
    """In each backend."""
    rows = [_calls(backend) for backend in FUNCTION_BACKENDS]
    with _full() as place:
        return rows + [_refusals(backend, place) for backend in Backend]


def measure_here() -> list[dict[str, Any]]:
    """With what needs no function to be hooked."""
    with _full() as place:
        return [_refusals(Backend.TRACEPOINT, place)]
