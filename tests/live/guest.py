"""What the live tests share: filesystems, workloads, sessions, and the kernel's own counts to compare with."""

from __future__ import annotations

import ctypes as ct
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracer.model.calls import FaultPath, Outcome, Series
from tracer.model.hooks import FUNCTION_BACKENDS, Backend, Loss
from tracer.model.options import Filters, Options
from tracer.model.snapshot import Snapshot
from tracer.probes import janitor

ROOT = Path("/tmp/live")
#: On tmpfs: the pages of a program on the host's files come and go, and with them faults that are not its own.
WORKLOAD = shutil.copy(os.environ["WORKLOAD"], "/tmp/workload")
TRACING = Path("/sys/kernel/tracing")

#: The handler of each filesystem, None where there is none, and the size of its image in MiB.
HANDLERS = {
    "ext4": "ext4_page_mkwrite",
    "xfs": "xfs_filemap_page_mkwrite",
    "btrfs": "btrfs_page_mkwrite",
    "tmpfs": None,
}
SIZES = {"ext4": 96, "xfs": 320, "btrfs": 160, "nilfs2": 160}
BACKENDS = FUNCTION_BACKENDS
#: Nothing lost.
NO_LOSS = dict.fromkeys(Loss, 0)


def run(*command: str) -> str:
    """Run a command that must succeed; its standard output."""
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stderr}"
    return done.stdout


def workload(what: str, *arguments: object) -> str:
    """Run a part of workload.c."""
    return run(WORKLOAD, what, *map(str, arguments))


class Steps:
    """A part of workload.c that stops at steps: it says that it got there, and waits."""

    def __init__(self, what: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [WORKLOAD, what, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def reach(self) -> None:
        """Wait for the next step."""
        assert self._process.stdout is not None
        assert self._process.stdout.read(1) == b"."

    def go(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def end(self) -> None:
        """Wait for its end, which must be good."""
        assert self._process.wait(timeout=600) == 0


@contextmanager
def frozen(place: Path) -> Iterator[None]:
    """The filesystem frozen: whoever asks it for a writable page waits."""
    run("fsfreeze", "-f", str(place))
    try:
        yield
    finally:
        run("fsfreeze", "-u", str(place))


def mount(fstype: str) -> Path:
    """A fresh filesystem, mounted below ``ROOT``."""
    place = ROOT / fstype
    place.mkdir(parents=True, exist_ok=True)
    if fstype == "tmpfs":
        run("mount", "-t", "tmpfs", "none", str(place))
        return place
    image = ROOT / f"{fstype}.img"
    with image.open("wb") as stream:
        stream.truncate(SIZES[fstype] << 20)
    load_modules("loop", fstype)
    run(f"mkfs.{fstype}", "-q", str(image))
    give_back(image)
    run("mount", "-i", "-o", "loop", str(image), str(place))
    return place


def give_back(image: Path) -> None:
    """Free what an image on tmpfs has of zeros: mkfs.xfs writes its log, which is 64 MiB."""
    run("fallocate", "--dig-holes", str(image))


def load_modules(*names: str) -> None:
    """Load what is not built in; what is missing, mounting will tell."""
    subprocess.run(["modprobe", "-a", *names], stderr=subprocess.DEVNULL, check=False)


def calls(snapshot: Snapshot, **wanted: object) -> int:
    """Calls of the series that have all the given attributes."""
    return sum(h.count for s, h in snapshot.calls.items() if matches(s, wanted))


def matches(series: Series, wanted: dict[str, object]) -> bool:
    """Whether a series has all the given attributes."""
    return all(getattr(series, name) == value for name, value in wanted.items())


def command(*arguments: str) -> list[str]:
    """The command line of mkwrite itself."""
    return [sys.executable, "-m", "tracer", *arguments]


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command of mkwrite itself; with its block it ends, whether that fails or not."""
    with subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "COLUMNS": "200"},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str], begin: str) -> str:
    """Wait until a command has printed a line that begins so on standard error; the line."""
    assert process.stderr is not None
    text = b""
    # By no buffer: what comes after the line stays for communicate().
    while byte := os.read(process.stderr.fileno(), 1):
        text += byte
        if byte == b"\n" and (line := text.decode().splitlines()[-1]).startswith(begin):
            return line
    raise AssertionError(f"it ended before it said {begin!r}: {text.decode()}")


def traces(process: subprocess.Popen[str]) -> None:
    """Wait until a command of mkwrite says that its hooks are on."""
    said(process, "Tracing with ")


@contextmanager
def tracing(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command of mkwrite whose hooks are on."""
    with running(*arguments) as process:
        traces(process)
        yield process


def ended(process: subprocess.Popen[str]) -> str:
    """Interrupt a command of mkwrite; all that it printed, if it ended well."""
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return output


class Truth:
    """The kernel's own count of entries to a function: the hits of a kprobe event of its own."""

    def __init__(self, function: str) -> None:
        self._event = f"truth/truth_{function}"
        janitor.command(str(TRACING / "kprobe_events"), f"p:{self._event} {function}")
        (TRACING / "events" / self._event / "enable").write_text("1")

    def hits(self) -> int:
        """How often the function was entered since."""
        for line in (TRACING / "kprobe_profile").read_text().splitlines():
            name, hits, missed = line.split()
            if name == self._event.partition("/")[2]:
                assert int(missed) == 0
                return int(hits)
        raise AssertionError(f"{self._event} is not there")

    def close(self) -> None:
        """Remove the event."""
        (TRACING / "events" / self._event / "enable").write_text("0")
        janitor.command(str(TRACING / "kprobe_events"), f"-:{self._event}")


@contextmanager
def truth(function: str) -> Iterator[Truth]:
    """The kernel's count for a function."""
    made = Truth(function)
    try:
        yield made
    finally:
        made.close()


def bpf_state() -> tuple[set[int], set[int], set[str]]:
    """Every program and map in the kernel, by id, and every kprobe event: what a tracer must not leave behind."""
    events = TRACING / "kprobe_events"
    probes = set(events.read_text().splitlines()) if events.exists() else set()
    return set(_ids("prog")), set(_ids("map")), probes


def _ids(kind: str) -> Iterator[int]:
    """The kernel's objects of a kind; bpftool would take a second to print them in a guest."""
    next_id = getattr(ct.CDLL("libbpf.so.1"), f"bpf_{kind}_get_next_id")
    number = ct.c_uint32()
    while next_id(number, ct.byref(number)) == 0:
        yield number.value


def eventually(test: Callable[[], bool], seconds: float = 600.0) -> bool:
    """Whether ``test`` comes true; ``seconds`` only ends what would hang."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if test():
            return True
        time.sleep(0.2)
    return test()


@contextmanager
def dirty_limits(**limits: int) -> Iterator[None]:
    """Other limits of how much may be dirty (in /proc/sys/vm) for a while; a ratio that is written undoes bytes."""
    ratios = [Path("/proc/sys/vm", name) for name in ("dirty_ratio", "dirty_background_ratio")]
    before = [ratio.read_text() for ratio in ratios]
    try:
        for name, limit in limits.items():
            Path("/proc/sys/vm", name).write_text(str(limit))
        yield
    finally:
        for ratio, was in zip(ratios, before, strict=True):
            ratio.write_text(was)


@contextmanager
def cgroup(name: str, **limits: str) -> Iterator[Path]:
    """A cgroup with limits; what is in it is killed at the end."""
    place = Path("/sys/fs/cgroup") / name
    place.mkdir()
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+pids +memory")
    for limit, value in limits.items():
        (place / limit.replace("_", ".", 1)).write_text(value)
    try:
        yield place
    finally:
        assert eventually(lambda: _emptied(place))


def _emptied(place: Path) -> bool:
    """Kill what is in a cgroup, and remove it once nothing is."""
    for pid in (place / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    with suppress(OSError):
        place.rmdir()
    return not place.exists()


def inside(place: Path, *arguments: str) -> list[str]:
    """A command line that runs another in a cgroup."""
    return ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(place), *arguments]


def lost(final: Snapshot) -> dict[Loss, int]:
    """What was lost, but for runs of do_wp_page's fentry program.

    A preemptible kernel skips those that meet a preempted one (see tracer/probes/plan.py), and says how many.
    """
    return {**final.lost, Loss.MISSED_PROBE: final.lost[Loss.MISSED_PROBE] - wp_skipped(final)}


def wp_skipped(final: Snapshot) -> int:
    """How many wp faults of the host were not counted therefore; on a kernel that is not preemptible, none."""
    return sum(hook.missed for hook in final.hooks if hook.function == "do_wp_page" and hook.backend is Backend.FENTRY)


#: More events than a ring buffer has room for, some thousands.
SOME_RINGS = 20_000


def survived(fault: str, backend: object, made: int, counted: int, lost: int = 0) -> None:
    """Print a row of the table in docs/support.md; ``made`` is the kernel's or the workload's own number."""
    row = {"fault": fault, "backend": str(backend), "made": made, "counted": counted, "lost": lost}
    print(f"SURVIVED {json.dumps({**row, 'kernel': os.uname().release})}", flush=True)


__all__ = [
    "BACKENDS", "HANDLERS", "NO_LOSS", "ROOT", "WORKLOAD", "Backend", "FaultPath", "Filters", "Loss", "Options",
    "Outcome", "Steps", "bpf_state", "calls", "cgroup", "command", "eventually", "frozen", "give_back", "inside",
    "load_modules", "lost", "mount", "run", "running", "survived", "truth", "workload",
    "wp_skipped",
]  # fmt: skip
