"""The counts of bpf/tracepoint.c: what the kernel tells where none of its functions can be hooked."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from tracer.errors import MkwriteError
from tracer.host.mounts import Mounts
from tracer.kernel.btf import FIELDS, Btf, header
from tracer.kernel.parsing import parse_cpus
from tracer.kernel.refusals import refusal_text
from tracer.kernel.symbols import Symbols
from tracer.model.calls import Initiator
from tracer.model.hooks import Backend, Hook
from tracer.model.options import By, Filters, Options
from tracer.model.snapshot import Throttled, Tracepoints
from tracer.probes import failures, program, writeback
from tracer.probes.abi import Count, Setting
from tracer.probes.attach import attach_raw_tracepoint
from tracer.probes.build import build, text
from tracer.probes.entries import entries
from tracer.probes.forks import let_go_in_forks
from tracer.probes.program import c_type
from tracer.probes.selection import Selection
from tracer.probes.settings import settings
from tracer.probes.source import source
from tracer.probes.tracer import HookPoint, Tracer

FILES: Final = ("config.h", "read.h", "filter.h", "tracepoint.c")
_FIELDS: Final = {**FIELDS, "bdi_writeback": ("bdi",), "backing_dev_info": ("dev_name",)}
_THROTTLING: Final = "balance_dirty_pages"
#: Programs by tracepoint.
_PROGRAMS: Final = {
    "signal_generate": "signalled",
    "page_fault_user": "faulted_user",
    "page_fault_kernel": "faulted_kernel",
    _THROTTLING: "throttling",
}
_ROW: Final = 8
_PAGE: Final = 4096
POSSIBLE_CPUS: Final = Path("/sys/devices/system/cpu/possible")
#: A jiffy: the resolution of the coarse clock (posix_get_coarse_res, kernel/time/posix-timers.c).
_CLOCK_MONOTONIC_COARSE: Final = 6


class TracepointCounts:
    """Attached tracepoints and their counts. ``close`` leaves nothing behind."""

    def __init__(self, selection: Selection) -> None:
        """Open them; raises MkwriteError or OSError if nothing can be counted; a missing tracepoint is a hook less."""
        self._descriptors: list[int] = []
        self._programs: dict[str, int] = {}
        self._maps: dict[str, int] = {}
        self._hooks: list[Hook] = []
        let_go_in_forks(self)
        self._jiffy_ns = round(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e9)
        wanted = selection.wanted()
        common = settings(Options(filters=selection.filters), wanted, cpus=0, cells=1, raced=False, handlers=False)
        try:
            with Btf() as btf:
                bpf = build(counts_source(btf))
                own = {**common, Setting.ARGUMENTS: 0}
                with suppress(MkwriteError):
                    own[Setting.ARGUMENTS] = btf.tracepoint(_THROTTLING)
                self._bpf = bpf.configured(own, {}, {"counts": _ROW * parse_cpus(POSSIBLE_CPUS.read_text())})
            self._maps = program.create_maps(self._bpf.maps)
            for one in wanted:
                program.insert(self._maps["wanted"], one.key, b"\1")
            for tracepoint, name in _PROGRAMS.items():
                self._attach(tracepoint, name)
        except BaseException:
            self.close()
            raise

    def _attach(self, tracepoint: str, name: str) -> None:
        detail = ""
        try:
            loaded = program.load(self._bpf, name, self._maps, program.RAW_TRACEPOINT)
            self._programs[tracepoint] = loaded
            self._descriptors.append(attach_raw_tracepoint(loaded, tracepoint))
        except OSError as error:
            detail = refusal_text(error)
        self._hooks.append(
            Hook(f"{tracepoint}:count", tracepoint, Backend.TRACEPOINT, attached=not detail, detail=detail)
        )
        if detail and len(self._hooks) == len(_PROGRAMS) and not self._descriptors:
            raise OSError(1, detail)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """What is attached and how often the kernel skipped each since, and what could not be attached."""
        return tuple(
            replace(hook, missed=program.recursion_misses(self._programs[hook.function])) if hook.attached else hook
            for hook in self._hooks
        )

    @property
    def programs(self) -> Iterator[tuple[str, int]]:
        """What is loaded: name, descriptor."""
        return ((_PROGRAMS[tracepoint], descriptor) for tracepoint, descriptor in self._programs.items())

    def read(self) -> Tracepoints:
        """Return the counts so far."""
        counts = self._counts()
        return Tracepoints(
            sigbus=counts[Count.SIGBUS],
            wp_faults={Initiator.USER: counts[Count.FAULTS_USER], Initiator.KERNEL: counts[Count.FAULTS_KERNEL]},
            throttled=dict(self._throttled()),
        )

    def full(self) -> int:
        """Pauses that were not counted since there were too many devices."""
        return self._counts()[Count.THROTTLED_FULL]

    def missed(self) -> int:
        """How often the kernel skipped a program."""
        return sum(map(program.recursion_misses, self._programs.values()))

    def detach(self) -> None:
        """Remove the hooks; the counts stay readable."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def abandon(self) -> None:
        """Let go of the hooks, in a fork of the process that attached (see ``forks``)."""
        self.detach()

    def close(self) -> None:
        """Detach, and free programs and maps."""
        self.detach()
        for descriptor in (*self._programs.values(), *self._maps.values()):
            os.close(descriptor)
        self._programs.clear()
        self._maps.clear()

    def _counts(self) -> list[int]:
        """Return sums over the CPUs, in the order of enum count."""
        values = [
            int.from_bytes(value, "little") for _, value in entries(self._bpf.maps["counts"], self._maps["counts"])
        ]
        return [sum(values[what::_ROW]) for what in range(_ROW)]

    def _throttled(self) -> Iterator[tuple[str, Throttled]]:
        spec = self._bpf.maps["throttled"]
        value = c_type(spec.value)
        mounts = None
        for name, raw in entries(spec, self._maps["throttled"]):
            found = value.from_buffer_copy(raw)
            device = name.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            mounts = mounts or Mounts.read()
            where = mounts.of_bdi(device)
            yield device, Throttled(found.pauses, found.jiffies * self._jiffy_ns, found.pages * _PAGE, where)


def counts_source(btf: Btf) -> str:
    """Return the C text of the object."""
    return text(header(btf, _FIELDS), Backend.TRACEPOINT, FILES)


def open_tracepoints(options: Options, symbols: Symbols, selection: Selection) -> tuple[Tracer, TracepointCounts]:
    """Return what tells of each SIGBUS, and what counts. Raises OSError, or MkwriteError."""
    wanted = selection.wanted()
    with Btf() as btf:
        bpf = build(source(btf, Backend.TRACEPOINT, failures=True))
        common = settings(options, wanted, cpus=1, cells=1, raced=False, handlers=False)
        own = {**common, **failures.settings(options, btf)}
        objects = {Backend.TRACEPOINT: bpf.configured(own, {"slots": 1}, {})}
        # In this order: the refusal before the signal that it belongs to.
        places = [
            HookPoint(name, "signal_generate", Backend.TRACEPOINT, tracepoint=True)
            for name in (("signal_refused", "signal_generated") if options.failures else ())
        ]
        if options.failures:
            places += writeback.places(options.filters, Backend.TRACEPOINT, symbols)
        tracer = Tracer(objects, [one.key for one in wanted], places, btf)
    try:
        return tracer, TracepointCounts(selection)
    except BaseException:
        tracer.close()
        raise


def note(why: str) -> str:
    """Return what is not seen without hooks on functions."""
    reason = f" ({why})" if why else ""
    return (
        f"tracepoint backend{reason}: no calls, latencies or outcomes, no errno, no EFAULT of system calls, not who "
        "cut a file; who refused is inferred from the mapping."
    )


def unfiltered(filters: Filters, by: By | None) -> Iterator[str]:
    """Faults and pauses have no file, and nobody's name is at hand without calls."""
    if filters.fs or filters.mounts or filters.handlers:
        yield "SIGBUS, wp faults and throttling are not counted with --fs, --mount or --handler: they name no file."
    if by:
        yield f"There are no calls to be told apart by {by}."
