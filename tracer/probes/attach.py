"""Attaching programs to kernel functions. What is attached goes when its descriptor is closed, or the process dies."""

from __future__ import annotations

import ctypes as ct
import fcntl
import itertools
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from tracer.errors import Exit, MkwriteError
from tracer.kernel.libbpf import checked, libbpf
from tracer.probes import janitor
from tracer.probes.program import KPROBE_MULTI

#: Calls that may sleep in a traced function at once before the kernel misses a return: the kernel's own limit.
MAXACTIVE: Final = 4096

_PERF_EVENT_OPEN: Final = 298  # x86_64
_PERF_TYPE_TRACEPOINT: Final = 2
_PERF_FLAG_FD_CLOEXEC: Final = 8
_PERF_EVENT_IOC_ENABLE: Final = 0x2400
_PERF_EVENT_IOC_SET_BPF: Final = 0x40042408
#: Of kprobe.multi links (include/uapi/linux/bpf.h).
_AT_RETURN: Final = 1
_KPROBE_PMU: Final = Path("/sys/bus/event_source/devices/kprobe/type")
_numbers: Final = itertools.count()
_TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))


class _PerfAttr(ct.Structure):
    """struct perf_event_attr, version 5 (include/uapi/linux/perf_event.h)."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("size", ct.c_uint32),
        ("config", ct.c_uint64),
        ("sample_period", ct.c_uint64),
        ("sample_type", ct.c_uint64),
        ("read_format", ct.c_uint64),
        ("flags", ct.c_uint64),
        ("wakeup_events", ct.c_uint32),
        ("bp_type", ct.c_uint32),
        ("kprobe_func", ct.c_char_p),
        ("probe_offset", ct.c_uint64),
        ("rest", ct.c_uint64 * 5),
    )


class _MultiOpts(ct.Structure):
    """struct bpf_link_create_opts (libbpf's bpf.h), with its part for kprobe.multi links."""

    _fields_ = (
        ("sz", ct.c_size_t),
        ("flags", ct.c_uint32),
        ("iter_info", ct.c_void_p),
        ("iter_info_len", ct.c_uint32),
        ("target_btf_id", ct.c_uint32),
        ("multi_flags", ct.c_uint32),
        ("multi_cnt", ct.c_uint32),
        ("syms", ct.c_void_p),
        ("addrs", ct.c_void_p),
        ("cookies", ct.c_void_p),
    )


def attach_fentry(program: int) -> int:
    """Attach a loaded fentry or fexit program to the function it was loaded for. Returns the link's descriptor."""
    return checked(libbpf().bpf_raw_tracepoint_open(None, program))


def attach_raw_tracepoint(program: int, name: str) -> int:
    """Attach to a tracepoint's raw arguments. Returns the link's descriptor."""
    return checked(libbpf().bpf_raw_tracepoint_open(name.encode(), program))


def attach_multi(program: int, address: int, at_return: bool) -> int:
    """Attach to the function at an address by a kprobe.multi link (5.18, CONFIG_FPROBE). Returns the link's descriptor.

    CAP_PERFMON is all that it takes, whatever kernel.perf_event_paranoid says. Before 6.14, returns come from a pool of
    twice as many places as there are CPUs (fprobe_init_rethook, kernel/trace/fprobe.c): not for who sleeps.
    """
    addresses = (ct.c_ulong * 1)(address)
    opts = _MultiOpts(
        sz=ct.sizeof(_MultiOpts), multi_flags=_AT_RETURN * at_return, multi_cnt=1, addrs=ct.addressof(addresses)
    )
    return checked(libbpf().bpf_link_create(program, 0, KPROBE_MULTI, ct.byref(opts)))


def attach_kprobe(program: int, function: str) -> int:
    """Attach to a function's entry through the kprobe PMU, which keeps nothing beyond the returned descriptor."""
    kind = int(_KPROBE_PMU.read_text())
    return _attach_perf(program, _PerfAttr(type=kind, kprobe_func=function.encode()))


def _attach_perf(program: int, attr: _PerfAttr) -> int:
    attr.size = ct.sizeof(_PerfAttr)
    attr.sample_period = attr.wakeup_events = 1
    libc = ct.CDLL(None, use_errno=True)
    event = libc.syscall(_PERF_EVENT_OPEN, ct.byref(attr), -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)
    if event < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    try:
        fcntl.ioctl(event, _PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(event, _PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return int(event)


class ReturnProbes:
    """Return probes with a pool of ``places`` each, for functions that sleep.

    They are tracefs events, which outlive their maker; a janitor process removes them if this process dies.
    """

    def __init__(self, places: int = MAXACTIVE) -> None:
        self._places = places
        self._tracefs = _tracefs()
        # A process may hold several tracers, and tracefs is one for all pid namespaces.
        self._suffix = f"{_pid_namespace():x}_{os.getpid():x}_{next(_numbers)}"
        self._group = f"mkwrite_{self._suffix}"
        self._janitor: subprocess.Popen[bytes] | None = None
        _sweep_dead(self._tracefs / "kprobe_events")

    def attach(self, program: int, function: str) -> int:
        """Attach ``program`` to the returns of ``function``. Returns the descriptor; close it before ``close``."""
        if self._janitor is None:
            self._janitor = subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", janitor.__file__),
                    *(str(self._tracefs / "kprobe_events"), self._group, str(os.getpid())),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        # The group alone would tell ours from others', but kprobe_profile does not print it.
        event = self._event(function)
        janitor.command(str(self._tracefs / "kprobe_events"), f"r{self._places}:{event} {function}")
        try:
            number = int((self._tracefs / "events" / event / "id").read_text())
            return _attach_perf(program, _PerfAttr(type=_PERF_TYPE_TRACEPOINT, config=number))
        except OSError:
            self.remove(function)
            raise

    def remove(self, function: str) -> None:
        """Remove the event of one function, once the descriptor is closed. One that went by itself is no error."""
        with suppress(OSError):
            janitor.command(str(self._tracefs / "kprobe_events"), f"-:{self._event(function)}")

    def _event(self, function: str) -> str:
        # What the compiler split off has dots in its name; events must not.
        return f"{self._group}/{function.replace('.', '_')}_{self._suffix}"

    def missed(self) -> dict[str, int]:
        """By function, the returns that the kernel missed since more than ``places`` calls slept at once."""
        found: dict[str, int] = {}
        with suppress(OSError, ValueError), (self._tracefs / "kprobe_profile").open() as stream:
            for line in stream:
                name, _, misses = line.split()[:3]
                if name.endswith(f"_{self._suffix}"):
                    found[name.removesuffix(f"_{self._suffix}")] = int(misses)
        return found

    def close(self) -> None:
        """Remove the events and let the janitor go."""
        if self._janitor is not None:
            assert self._janitor.stdin is not None
            # One way of cleaning up, always taken.
            with suppress(BrokenPipeError), self._janitor.stdin as stdin:
                stdin.write(b"\n")
            self._janitor.wait()
            self._janitor = None

    def abandon(self) -> None:
        """Leave the events to the process that made them, whose fork this is."""
        self._janitor = None


def _tracefs() -> Path:
    for path in _TRACEFS:
        if (path / "kprobe_events").exists():
            return path
    raise MkwriteError(
        "The kprobe backend needs tracefs for its return probes, and it is not mounted.",
        "Mount it: mount -t tracefs nodev /sys/kernel/tracing.",
        Exit.NO_TRACEFS,
    )


def _pid_namespace() -> int:
    return Path("/proc/self/ns/pid").stat().st_ino


def _sweep_dead(events: Path) -> None:
    """Remove what tracers of our pid namespace left whose janitor was killed too; of others, who lives is not known."""
    for group, pid in set(re.findall(rf":(mkwrite_{_pid_namespace():x}_([0-9a-f]+)_\d+)/", events.read_text())):
        if _is_dead(int(pid, 16)):
            janitor.sweep(str(events), group)


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
