"""mkwrite itself under the benchmark, and programs that do nothing: the floor that the kernel's hooks set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from unittest.mock import patch

from bench.faults import FAULTS, KINDS, RUNS
from tracer.kernel.btf import Btf
from tracer.model.hooks import FUNCTION_BACKENDS
from tracer.model.options import By, Filters, Options
from tracer.probes import plan, program
from tracer.probes.attach import ReturnProbes, attach_fentry, attach_kprobe
from tracer.session import Session

Attached = Callable[[], AbstractContextManager[None]]

#: r0 = 0; exit
_EMPTY = program.BpfObject({}, {"empty": bytes.fromhex("b7000000000000009500000000000000")}, {"empty": ()})
_HOOKED = (plan.CORE, plan.WP)


@contextmanager
def _empty_fentry() -> Iterator[None]:
    descriptors = []
    with Btf() as btf:
        for function in _HOOKED:
            for kind in (program.FEXIT, program.FENTRY):
                loaded = program.load(_EMPTY, "empty", {}, program.TRACING, kind, btf.function(function) or 0)
                descriptors += [loaded, attach_fentry(loaded)]
    yield
    for descriptor in reversed(descriptors):
        os.close(descriptor)


@contextmanager
def _empty_kprobe() -> Iterator[None]:
    returns = ReturnProbes()
    loaded = program.load(_EMPTY, "empty", {}, program.KPROBE)
    with ExitStack() as stack:
        stack.callback(os.close, loaded)
        stack.callback(returns.close)
        for function in _HOOKED:
            stack.callback(os.close, returns.attach(loaded, function))
            stack.callback(os.close, attach_kprobe(loaded, function))
        yield


@contextmanager
def _mkwrite(options: Options, tell_raced: bool = True) -> Iterator[None]:
    # Without the hook that tells raced calls, as on a kernel that lacks its function.
    with patch.object(plan, "DIRTY", plan.DIRTY if tell_raced else "no_such_function"), Session(options) as session:
        yield
        final = session.finish()
    counted = sum(histogram.count for histogram in final.calls.values())
    calls = FAULTS * sum(len(arguments) > 1 for arguments in KINDS.values())
    # Each kind runs once to warm up; both write-protect and first-write kinds touch each page once more before.
    made = 2 * calls * (RUNS + 1)
    if not options.filters.fs and (counted != made or final.total_lost):
        raise RuntimeError(f"{counted} calls counted of {made}, lost: {final.lost}")


def _cases() -> Iterator[tuple[str, Attached]]:
    yield "empty fentry/fexit pair", _empty_fentry
    yield "empty kprobe/kretprobe pair", _empty_kprobe
    yield "mkwrite as it comes", partial(_mkwrite, Options())
    for backend in FUNCTION_BACKENDS:
        name = f"mkwrite {backend}"
        yield f"{name}, calls and latency", partial(_mkwrite, Options(backend, failures=False), tell_raced=False)
        yield f"{name}, raced told", partial(_mkwrite, Options(backend, failures=False))
        yield f"{name}, --by process", partial(_mkwrite, Options(backend, by=By.PROCESS, failures=False))
        yield f"{name}, --slower 100ms", partial(_mkwrite, Options(backend, slower_ns=100_000_000, failures=False))
        yield f"{name}, waits", partial(_mkwrite, Options(backend, waits=True, failures=False))
        yield f"{name}, failures told", partial(_mkwrite, Options(backend))
        yield f"{name}, sigbus", partial(_mkwrite, Options(backend, every_errno=True))
        yield (
            f"{name}, --fs tmpfs (none wanted)",
            partial(_mkwrite, Options(backend, Filters(fs=("tmpfs",)), failures=False)),
        )


#: What is attached, by name.
CASES: Mapping[str, Attached] = dict(_cases())
