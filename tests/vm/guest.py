"""Runs a command in a guest that boots a stock kernel on the host's own root file system.

``run_guest("6.12", ["uname", "-r"])`` boots, runs, stops the guest, and tells how it went. The
guest's root is the host's, with a tmpfs over it: the command may write anywhere, and it is gone
afterwards, except in the directories passed as ``share``.

virtme-ng builds the initramfs and starts QEMU. A short init script of our own then replaces
virtme-ng's, because that one runs systemd-tmpfiles and udev, which under emulation take longer
than the boot itself. Host and guest talk through three virtio ports: the command's stdout and
stderr, and ``status``, which says ``booted`` and later the exit code. The serial console is kept
for error messages.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from . import virtiofs
from .emulator import GuestError, emulation, export, kvm_works, program
from .kernel import Kernel
from .kernels import get_kernel
from .leash import Leashed
from .script import Script

BOOT_TIMEOUT = 180.0
CONSOLE_TAIL_LINES = 40

_KERNEL_ARGS = (
    *("console=ttyS0", "earlyprintk=serial,ttyS0,115200", "quiet", "loglevel=4"),
    # A kernel bug ends the guest, and the run with it.
    *("panic=-1", "oops=panic"),
    # Clocks that a busy host's emulation starves look broken to the kernel; they are not.
    *("tsc=reliable", "no_timer_check"),
    # Emulation is slow enough without these.
    *("no5lvl", "mitigations=off", "init_on_alloc=0", "cryptomgr.notests=1"),
)

#: The memory map, uncertain stack entries and registers.
_NOISE = re.compile(r"\] (BIOS-e820:|  *\? |RSP: |R[A-Z0-9]{2}: |Code: |FS: |CS: |CR2: )")

Sink = Callable[[bytes], object]


class GuestBootError(GuestError):
    """The guest never came to the command."""


class GuestCrash(GuestError):
    """The guest ended before the command did: a kernel panic, for example."""


class GuestTimeout(GuestError):
    """The command took longer than allowed, or said nothing for too long; the guest was killed."""


@dataclass(frozen=True)
class GuestResult:
    """A finished command. A command killed by signal N has the return code 128 + N, as in sh."""

    args: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str
    release: str
    boot_seconds: float
    seconds: float
    console: str

    def check_returncode(self) -> None:
        if self.returncode:
            raise subprocess.CalledProcessError(self.returncode, self.args, self.stdout, self.stderr)


def run_guest(
    series: str | Kernel,
    argv: Sequence[str],
    *,
    cpus: int = 2,
    memory: str = "2G",
    timeout: float | None = 600.0,
    silence: float | None = None,
    boot_timeout: float = BOOT_TIMEOUT,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    share: Sequence[str | os.PathLike[str]] = (),
    icount: bool = False,
    parallel: bool = False,
    kernel_args: Sequence[str] = (),
    qemu_args: Sequence[str] = (),
    stdout: Sink | None = None,
    stderr: Sink | None = None,
) -> GuestResult:
    """Boot a kernel, run a command there as root, and return how it went.

    ``timeout`` limits the command, ``silence`` how long it may print nothing, ``boot_timeout`` what comes before it;
    each is in seconds. ``share`` are existing
    directories in which the guest's writes reach the host. ``icount`` counts time in instructions
    of one CPU, a nanosecond each. ``parallel`` emulates the CPUs at the same time even where that
    crashes the guest now and then, see ``emulator``. ``stdout`` and ``stderr`` get the output while it comes; the
    result holds it too. Raises a ``GuestError`` if there is no result.
    """
    if not argv:
        raise ValueError("no command to run")
    kernel = series if isinstance(series, Kernel) else get_kernel(series)
    virtme = [f"--memory={memory}", f"--cpus={1 if icount else cpus}"]
    if icount:
        qemu = ["-icount", "shift=0,sleep=off"]
    elif kvm_works(kernel):
        qemu = []
    else:
        qemu = emulation(parallel)
    if qemu:
        virtme.append("--disable-kvm")
    script = Script(
        kernel=kernel,
        argv=tuple(argv),
        cwd=Path(cwd or Path.cwd()).resolve(),
        env=env or {},
        share=tuple(Path(path).resolve() for path in share),
    )
    with Guest(script, sinks={"stdout": stdout, "stderr": stderr}) as guest:
        guest.start(virtme, [*qemu, *qemu_args], kernel_args, memory)
        return guest.wait(timeout=timeout, silence=silence, boot_timeout=boot_timeout)


class Guest:
    """One boot for one command. A context manager: leaving it kills what still runs."""

    def __init__(self, script: Script, *, sinks: Mapping[str, Sink | None]) -> None:
        self.script = script
        self.kernel = script.kernel
        self._sinks = sinks
        self._output = {name: bytearray() for name in ("console", "stdout", "stderr", "status")}
        self._leashed: Leashed | None = None
        self._started = 0.0
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._cleanup.enter_context(self.kernel.in_use())
        directory = tempfile.TemporaryDirectory(prefix="mkwrite-vm-")
        self.control = Path(self._cleanup.enter_context(directory)).resolve()
        self._selector = self._cleanup.enter_context(selectors.DefaultSelector())
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def start(
        self, virtme_args: Sequence[str], qemu_args: Sequence[str], kernel_args: Sequence[str], memory: str
    ) -> None:
        """Start QEMU on the leash of this process."""
        (self.control / "root").mkdir()
        (self.control / "tmp").mkdir()
        busybox = program("busybox")
        (self.control / "init").write_text(self.script.init(busybox, self.control))
        (self.control / "setup").write_text(self.script.setup(busybox))
        ends = {name: self._pipe(name) for name in self._output}
        command = [
            program("virtme-run"),
            f"--kimg={self.kernel.image}",
            *("--mods=auto", "--force-9p", "--disable-monitor"),
            "--overlay-rwdir=/",  # brings the overlay module into the initramfs
            *virtme_args,
            *("--qemu-opts", "-no-reboot"),
        ]
        through_virtiofs = virtiofs.needed(self.kernel)
        if not through_virtiofs:
            command += export("mkwrite.root", Path("/"), "readonly=on")
            for number, path in enumerate(self.script.share):
                command += export(f"mkwrite.share{number}", path, "readonly=off")
        for name, end in ends.items():
            if name != "console":
                command += ["-chardev", f"file,id=mkwrite.{name},path=/proc/self/fd/{end}"]
                command += ["-device", f"virtserialport,name=mkwrite.{name},chardev=mkwrite.{name}"]
        if self.kernel.unpacked_image.exists():
            command += ["-kernel", str(self.kernel.unpacked_image)]
        init = f"init={busybox} -- sh {self.control}/init"
        command += [*qemu_args, "-append", " ".join([*_KERNEL_ARGS, *kernel_args, init])]
        if through_virtiofs:
            shares = [(f"mkwrite.share{number}", path) for number, path in enumerate(self.script.share)]
            command = virtiofs.wrapped(command, [(virtiofs.ROOT_TAG, Path("/")), *shares], self.control, memory)
        self._started = time.monotonic()
        self._leashed = Leashed(
            command,
            self.control,
            stdout=ends["console"],
            stderr=ends["console"],
            pass_fds=tuple(ends.values()),
            env={**os.environ, "TMPDIR": str(self.control / "tmp")},
        )
        self._cleanup.callback(self._leashed.close)
        for end in ends.values():
            os.close(end)

    def wait(self, *, timeout: float | None, silence: float | None, boot_timeout: float) -> GuestResult:
        """Stream the output until the command has ended, and stop the guest."""
        assert self._leashed is not None
        booted: float | None = None
        deadline = self._started + boot_timeout
        printed, quiet_until = 0, float("inf")
        while True:
            gone = self._leashed.process.poll() is not None  # all that it wrote is in the pipes by now
            moved = self._pump(0 if gone else 1)
            now = time.monotonic()
            if (length := len(self._output["stdout"]) + len(self._output["stderr"])) > printed:
                printed, quiet_until = length, now + (silence or float("inf"))
            said = self._output["status"].decode().split("\n")
            if booted is None and said[0] == "booted":
                booted = now
                deadline = now + (timeout or float("inf"))
            if booted is not None and len(said) > 2:
                break
            if gone and not moved:
                raise (
                    GuestBootError(f"{self} did not boot", self.tail())
                    if booted is None
                    else GuestCrash(f"{self} died before the command ended", self.tail())
                )
            if now > deadline:
                raise (
                    GuestBootError(f"{self} did not boot in {boot_timeout:g} s", self.tail())
                    if booted is None
                    else GuestTimeout(f"the command took more than {timeout:g} s", self.tail())
                )
            if now > quiet_until:
                raise GuestTimeout(f"the command has printed nothing for {silence:g} s", self.tail())
        # The ports are synchronous: what the command wrote is in the pipes, and there is nothing
        # to shut down in the guest.
        self.kill()
        while self._pump(0):
            pass
        text = {name: data.decode(errors="replace") for name, data in self._output.items()}
        return GuestResult(
            args=self.script.argv,
            returncode=int(said[1]),
            stdout=text["stdout"],
            stderr=text["stderr"],
            release=self.kernel.release,
            boot_seconds=booted - self._started,
            seconds=now - booted,
            console=text["console"],
        )

    def kill(self) -> None:
        """Kill QEMU and everything else that was started for the guest."""
        if self._leashed is not None:
            self._leashed.kill()
            self._leashed.process.wait()

    def tail(self) -> str:
        """The last lines of the console, without those that only fill the screen."""
        text = self._output["console"].decode(errors="replace").replace("\r", "")
        lines = [line for line in text.splitlines() if not _NOISE.search(line)]
        return "\n".join(lines[-CONSOLE_TAIL_LINES:])

    def __str__(self) -> str:
        return f"the guest of Linux {self.kernel.release}"

    def _pipe(self, name: str) -> int:
        """A pipe whose read end is streamed; returns the write end."""
        read, write = os.pipe()
        self._cleanup.callback(os.close, read)
        self._selector.register(read, selectors.EVENT_READ, name)
        return write

    def _pump(self, timeout: float) -> bool:
        """Pass on what there is to read; false if there is nothing."""
        events = self._selector.select(timeout)
        for key, _ in events:
            data = os.read(key.fd, 65536)
            if not data:
                self._selector.unregister(key.fd)
            self._output[key.data] += data
            if data and (sink := self._sinks.get(key.data)):
                sink(data)
        return bool(events)
