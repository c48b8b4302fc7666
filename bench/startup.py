"""What starting costs, and what stays in memory: CPU seconds to the first sample, resident memory, CPU at rest.

In a guest under -icount a CPU second is 10^9 instructions. Here, on the host, only what hooks no function can run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.peers import ROOT, TRACING

_DISTRIBUTION = "/usr/bin/python3"
_MKWRITE = (sys.executable, "-m", "tracer")
_ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "BCC_KERNEL_SOURCE": str(ROOT / "bpf/kernel")}
_URL = "http://127.0.0.1:9788/metrics"
_EXPORTER = """
import http.server, threading, prometheus_client
prometheus_client.Counter("calls", "Calls.").inc()
prometheus_client.generate_latest()
"""
_SERVER = f"""{_EXPORTER}
server, _ = prometheus_client.start_http_server(0, "127.0.0.1")
print(f"http://127.0.0.1:{{server.server_port}}/metrics", flush=True)
threading.Event().wait()
"""
#: Where it may hook no function, it may still run at times.
_TIMER = 'interval:ms:100 { if (@n == 0) { printf("ready\\n"); } @n++; }'
_SCRAPES = 20
_RUNS = 3
#: What stays is looked at for so long, and scraped as Prometheus might.
_REST_S, _SCRAPE_EVERY_S = 60, 5

Row = dict[str, float]


def _finished(command: Sequence[str], runs: int = _RUNS, tries: int = 1) -> Row:
    """CPU time and time of a command until it ends, and its peak memory; children that it waited for included."""
    rows: list[Row] = []
    while len(rows) < runs:
        started = time.monotonic()
        done = subprocess.run(
            [os.environ["WORKLOAD"], "run", *command], env=_ENVIRONMENT, cwd="/",
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        ended = time.monotonic()
        tries -= done.returncode != 0
        if not tries:
            raise RuntimeError(done.stderr[-500:])
        if done.returncode:
            continue
        microseconds, kibibytes = done.stdout.split()[-2:]
        rows.append({"cpu_s": int(microseconds) / 1e6, "wall_s": ended - started, "peak_mb": int(kibibytes) / 1024})
    # The first run reads the files.
    return min(rows, key=lambda row: row["cpu_s"])


def _attached(command: Sequence[str], function: str = "do_page_mkwrite") -> Row:
    """CPU time of a tool until the function is hooked at both ends, and its memory then and at most."""
    process = subprocess.Popen(
        command, env={**_ENVIRONMENT, "PYTHONPATH": ""}, cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    started = time.monotonic()
    try:
        while not _hooked(function):
            if process.poll() is not None or time.monotonic() - started > 600:
                raise RuntimeError(f"{command[0]} did not attach")
            time.sleep(0.05)
        row = {"cpu_s": _cpu_seconds(process.pid)}
        time.sleep(1)
        return row | _memory(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _hooked(function: str) -> bool:
    return f"{function} (" in (TRACING / "enabled_functions").read_text()


def _exporter() -> Row:
    """The exporter while it serves: memory, and CPU time of a scrape."""
    process = subprocess.Popen([*_MKWRITE, "export"], env=_ENVIRONMENT, cwd="/", stderr=subprocess.DEVNULL)
    try:
        started = time.monotonic()
        while not _scrape():
            if process.poll() is not None or time.monotonic() - started > 600:
                raise RuntimeError("mkwrite export did not start")
            time.sleep(0.5)
        before = _cpu_seconds(process.pid)
        for _ in range(_SCRAPES):
            _scrape()
        return {"cpu_s": (_cpu_seconds(process.pid) - before) / _SCRAPES, **_memory(process.pid)}
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _staying(*command: str) -> Row:
    """A process that stays: to its first sample, then for a minute. It says where it listens, or "ready"."""
    started = time.monotonic()
    process = subprocess.Popen(
        command, env=_ENVIRONMENT, cwd="/", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = next(filter(None, map(re.compile(r"ready|http://\S+").search, process.stdout)), None)
        if said is None:
            raise RuntimeError(f"{command[0]} did not start")
        url = said[0] if said[0] != "ready" else ""
        if url:
            _get(url)
        row = {"wall_s": time.monotonic() - started, "cpu_s": _cpu_seconds_of_all(process.pid)}
        before, at = _cpu_seconds(process.pid), time.monotonic()
        while time.monotonic() < at + _REST_S:
            time.sleep(_SCRAPE_EVERY_S)
            if url:
                _get(url)
        used = (_cpu_seconds(process.pid) - before) / (time.monotonic() - at)
        return row | {"rest_percent": used * 100, **_memory(process.pid)}
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        body: bytes = answer.read()
    return body


def _scrape() -> bool:
    try:
        return b"\nmkwrite_up 1" in _get(_URL)
    except OSError:
        return False


def _cpu_seconds(pid: int) -> float:
    """Of all threads, those that have ended included: the clock that clock_getcpuclockid(3) names."""
    return time.clock_gettime(-8 * pid - 6)


def _cpu_seconds_of_all(pid: int) -> float:
    """The same, with children that it waited for: utime, stime, cutime and cstime of proc_pid_stat(5)."""
    fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _memory(pid: int) -> Row:
    """What it holds now, and what it held at most."""
    text = Path("/proc", str(pid), "status").read_text()
    kib = {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    return {"steady_mb": kib["VmRSS"] / 1024, "peak_mb": kib["VmHWM"] / 1024}


def _without_cache(*options: str) -> Row:
    kept = _ENVIRONMENT.get("CACHE_DIRECTORY", "")
    _ENVIRONMENT["CACHE_DIRECTORY"] = "/proc/nowhere"
    try:
        # Time that is skipped while the compiler's files are read can look like a compiler that hangs.
        return _finished([*_MKWRITE, "export", "--once", *options], runs=1, tries=3)
    finally:
        _ENVIRONMENT["CACHE_DIRECTORY"] = kept


#: What runs anywhere.
UNTRACED: dict[str, Callable[[], Row]] = {
    "python3 -c pass": lambda: _finished([_DISTRIBUTION, "-c", "pass"]),
    "python3 -c 'import bcc'": lambda: _finished([_DISTRIBUTION, "-c", "import bcc"]),
    "a Python exporter without tracing": lambda: _finished([sys.executable, "-c", _EXPORTER]),
    "mkwrite --version": lambda: _finished([*_MKWRITE, "--version"]),
}

_TRACEPOINTS = ("--backend", "tracepoint")

#: Where the kernel may refuse what is traced with: to the first sample with tracepoints, which it has.
HERE: dict[str, Callable[[], Row]] = {
    "mkwrite export --once, fentry and kprobe refused first": lambda: _finished([*_MKWRITE, "export", "--once"]),
    "mkwrite export --once --backend tracepoint": lambda: _finished([*_MKWRITE, "export", "--once", *_TRACEPOINTS]),
    "mkwrite export --once --backend tracepoint, first time on this kernel": lambda: _without_cache(*_TRACEPOINTS),
    "mkwrite export --backend tracepoint, serving": lambda: _staying(
        *_MKWRITE, "export", "--listen", "127.0.0.1:0", *_TRACEPOINTS
    ),
    "a Python exporter without tracing, serving": lambda: _staying(sys.executable, "-c", _SERVER),
    "python3 -c 'import bcc', idle": lambda: _staying(
        _DISTRIBUTION, "-c", "import bcc, time; print('ready', flush=True); time.sleep(600)"
    ),
    "bpftrace of a timer, ten times a second": lambda: _staying("bpftrace", "-B", "line", "-e", _TIMER),
}

_HISTOGRAM = "kprobe:do_page_mkwrite { @s[tid] = nsecs; } kretprobe:do_page_mkwrite { @ = hist(nsecs - @s[tid]); }"

#: What has to be traced for.
TRACED: dict[str, Callable[[], Row]] = {
    "mkwrite export --once": lambda: _finished([*_MKWRITE, "export", "--once"]),
    "mkwrite export --once, first time on this kernel": _without_cache,
    "mkwrite export, serving (a scrape)": _exporter,
    "bpftrace, to attached": lambda: _attached(["bpftrace", "-e", _HISTOGRAM]),
    "funclatency, to attached": lambda: _attached(["funclatency-bpfcc", "do_page_mkwrite"]),
}


def measure(cases: dict[str, Callable[[], Row]]) -> dict[str, Row]:
    """All of them; one that fails is left out, and said."""
    rows = {}
    for name, case in cases.items():
        try:
            rows[name] = case()
        except (RuntimeError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
        else:
            values = "  ".join(f"{key} {value:.3f}" for key, value in rows[name].items())
            print(f"{name:50} {values}", file=sys.stderr, flush=True)
    return rows
