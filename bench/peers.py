"""What people would use instead, under the benchmark: each started as they would start it, on one function."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from bench.faults import KINDS, workload
from tracer.probes import janitor

Attached = Callable[[], AbstractContextManager[None]]

ROOT = Path(__file__).resolve().parents[1]
TRACING = Path("/sys/kernel/tracing")
#: Compiling takes a minute or two under emulation.
_TIMEOUT_S = 600.0
_CALLS, _WP = "do_page_mkwrite", "do_wp_page"
#: The fault by which one sees that a function is traced.
_SEEN_BY = {_CALLS: "ext4 first write", _WP: "COW"}


def _ticks(function: str) -> float:
    return median(workload(*KINDS[_SEEN_BY[function]], 61))


@contextmanager
def _tool(function: str, command: Sequence[str]) -> Iterator[None]:
    """Run a tool, from the moment when faults cost more and the cost stays, until they cost what they did before."""
    untraced = _ticks(function)
    log = Path("/tmp/bench/tool.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**os.environ, "BCC_KERNEL_SOURCE": str(ROOT / "bpf/kernel"), "PYTHONPATH": ""},
        )  # fmt: skip
    try:
        _until(process, lambda: _steady(function, lambda ticks: ticks > untraced + 50), log)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _until(None, lambda: _steady(function, lambda ticks: abs(ticks - untraced) <= 50), log)


def _steady(function: str, right: Callable[[float], bool]) -> bool:
    """Whether three looks agree, some time apart: return probes are attached after those at the entry."""
    seen = []
    for _ in range(3):
        seen.append(_ticks(function))
        if not right(seen[-1]):
            return False
        time.sleep(2)
    return max(seen) - min(seen) < 50


def _until(process: subprocess.Popen[bytes] | None, condition: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + _TIMEOUT_S
    while not condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}: {_tail(log)}")
        if time.monotonic() > end:
            raise RuntimeError(f"not attached in {_TIMEOUT_S} s: {_tail(log)}")
        time.sleep(1)


def _tail(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").split("\n")[-8:])


@contextmanager
def _function_graph(function: str) -> Iterator[None]:
    (TRACING / "set_ftrace_filter").write_text(function)
    (TRACING / "current_tracer").write_text("function_graph")
    yield
    (TRACING / "current_tracer").write_text("nop")
    (TRACING / "set_ftrace_filter").write_text("")


def _kprobe_event(command: str) -> None:
    janitor.command(str(TRACING / "kprobe_events"), command)


@contextmanager
def _probe_events(function: str) -> Iterator[None]:
    """The two events that "perf probe" makes."""
    _kprobe_event(f"p:bench/entry {function}")
    _kprobe_event(f"r:bench/leave {function}")
    try:
        yield
    finally:
        _kprobe_event("-:bench/leave")
        _kprobe_event("-:bench/entry")


@contextmanager
def _perf(function: str, command: Sequence[str]) -> Iterator[None]:
    with _probe_events(function), _tool(function, command):
        yield


@contextmanager
def _hist_triggers(function: str) -> Iterator[None]:
    """A latency histogram by the kernel alone: Documentation/trace/histogram.rst, inter-event histograms."""
    (TRACING / "synthetic_events").write_text("bench_latency u64 lat\n")
    with _probe_events(function):
        events = TRACING / "events"
        triggers = (
            (events / "bench/entry/trigger", "hist:keys=common_pid:start=common_timestamp"),
            (
                events / "bench/leave/trigger",
                "hist:keys=common_pid:lat=common_timestamp-$start:onmatch(bench.entry).bench_latency($lat)",
            ),
            (events / "synthetic/bench_latency/trigger", "hist:keys=lat.log2"),
        )
        made = []
        try:
            for path, text in triggers:
                path.write_text(text)
                made.append((path, text))
            yield
        finally:
            for path, text in reversed(made):
                path.write_text("!" + text)
    (TRACING / "synthetic_events").write_text("")


#: Of the vm_fault in $vmf. The casts tell bpftrace which types it needs of the kernel's.
_DEVICE = (
    "$vma = (struct vm_area_struct *)$vmf->vma; $file = (struct file *)$vma->vm_file; "
    "$inode = (struct inode *)$file->f_inode; $sb = (struct super_block *)$inode->i_sb; $device = $sb->s_dev;"
)


def _bpftrace(function: str, kernel_functions: bool, by_device: bool) -> str:
    """A histogram of latencies. A kretprobe does not see the arguments: the device is read at the entry."""
    enter, leave = ("kfunc", "kretfunc") if kernel_functions else ("kprobe", "kretprobe")
    at_entry = at_return = after = ""
    key = "@"
    if by_device and kernel_functions:
        at_return, key = f"$vmf = (struct vm_fault *)args->vmf; {_DEVICE}", "@[$device]"
    elif by_device:
        at_entry = f"$vmf = (struct vm_fault *)arg0; {_DEVICE} @device[tid] = $device;"
        key, after = "@[@device[tid]]", "delete(@device[tid]);"
    return (
        f"{enter}:{function} {{ @start[tid] = nsecs; {at_entry} }} {leave}:{function} /@start[tid]/ "
        f"{{ {at_return} {key} = hist(nsecs - @start[tid]); delete(@start[tid]); {after} }}"
    )


def _cases() -> Iterator[tuple[str, Attached]]:
    for function in (_CALLS, _WP):
        name = "" if function == _CALLS else ", do_wp_page"
        yield f"ftrace function_graph{name}", partial(_function_graph, function)
        yield f"kprobe events, hist triggers{name}", partial(_hist_triggers, function)
        events = ("-e", "bench:entry", "-e", "bench:leave")
        yield (
            f"perf record, entry and return{name}",
            partial(_perf, function, ("perf", "record", "-q", "-a", "-o", "/dev/null", *events)),
        )
        yield (
            f"perf trace, entry and return{name}",
            partial(_perf, function, ("perf", "trace", "--no-syscalls", "-a", "-o", "/dev/null",
                                      "-e", "bench:entry,bench:leave")),
        )  # fmt: skip
        yield f"funccount{name}", partial(_tool, function, ("funccount-bpfcc", function))
        yield f"funclatency{name}", partial(_tool, function, ("funclatency-bpfcc", function))
        for kernel_functions in (False, True):
            how = "kfunc/kretfunc" if kernel_functions else "kprobe/kretprobe"
            for by_device in (False, True) if function == _CALLS else (False,):
                program = _bpftrace(function, kernel_functions, by_device)
                yield (
                    f"bpftrace {how}{' by device' if by_device else ''}{name}",
                    partial(_tool, function, ("bpftrace", "-e", program)),
                )


#: What is attached, by name.
CASES: Mapping[str, Attached] = dict(_cases())
