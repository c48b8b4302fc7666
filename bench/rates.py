"""What is counted a second without a loss, of real faults: calls, and failures. Guest time: an instruction is a ns."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from typing import Any

from bench.faults import PLACE, run, workload
from tracer.failure import Failure
from tracer.model import FUNCTION_BACKENDS, Backend, Filters, Options, Outcome
from tracer.model import Path as FaultPath
from tracer.session import Session

_SECONDS = 1
#: A prime.
_REFUSALS = 30_011
_READ_EVERY_S = 0.1


def _row(what: str, backend: Backend, a_second: float, **numbers: int) -> dict[str, Any]:
    row = {"what": what, "backend": str(backend), "a_second": a_second, **numbers}
    print(json.dumps(row), flush=True)
    return row


def _calls(backend: Backend) -> dict[str, Any]:
    """First writes to one page, as fast as they come."""
    with Session(Options(backend, Filters(fs=("ext4",)))) as session:
        (made,) = workload("storm", "first-write", PLACE / "ext4/rate", _SECONDS, 1)
        final = session.finish()
    # One that opens the file is in the storm's count.
    counted = sum(h.count for series, h in final.calls.items() if series.path is FaultPath.FIRST_WRITE)
    return _row("calls", backend, made / _SECONDS, made=made, counted=counted, lost=final.total_lost)


def _refusals(backend: Backend) -> dict[str, Any]:
    """SIGBUS of one process after another, each caught, read as the exporter reads them."""
    told: list[Failure] = []
    command = [str(PLACE / "workload"), "refused", str(PLACE / "full/file"), str(_REFUSALS)]
    with Session(Options(backend, failures=True)) as session:
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
    ordinals = [failure.ordinal for failure in told]
    if ordinals != sorted(set(ordinals)) or not all(failure.signal and failure.errno for failure in told):
        raise RuntimeError(f"what was told of one by one does not fit: {ordinals}")
    return _row(
        "failures", backend, _REFUSALS / ns * 1e9, made=_REFUSALS, **numbers, told=len(told), lost=final.total_lost
    )


def _fill() -> None:
    """A filesystem without a free block."""
    place, image = PLACE / "full", PLACE / "full.img"
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(32 << 20)
    run("mkfs.ext4", "-q", str(image))
    run("mount", "-o", "loop", str(image), str(place))
    (place / "file").touch()
    with (place / "filler").open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while True:
                    stream.write(bytes(size))
        os.fsync(stream.fileno())


def measure() -> list[dict[str, Any]]:
    """In each backend."""
    _fill()
    return [measured(backend) for measured in (_calls, _refusals) for backend in FUNCTION_BACKENDS]
