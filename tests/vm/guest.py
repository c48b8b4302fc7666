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
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from . import virtiofs
from .kernels import Kernel, cache_dir, get_kernel, say, version_key

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
#: Runs a command with stdin closed. When the pipe that was stdin closes, that is when whoever held
#: its other end is gone, however that ended, removes $0 and kills the whole process group.
_LEASH = 'exec 3<&0 </dev/null; { read -r _ <&3; rm -rf "$0"; kill -KILL 0; } & exec "$@" 3<&-'

#: The memory map, uncertain stack entries and registers.
_NOISE = re.compile(r"\] (BIOS-e820:|  *\? |RSP: |R[A-Z0-9]{2}: |Code: |FS: |CS: |CR2: )")

Sink = Callable[[bytes], object]


class GuestError(Exception):
    """The guest gave no result; ``console`` is the end of what its kernel said."""

    def __init__(self, message: str, console: str = "") -> None:
        super().__init__(message)
        self.console = console

    def __str__(self) -> str:
        text = super().__str__()
        if self.console.strip():
            text += f"\n--- the guest's console ends with:\n{self.console.rstrip()}\n---"
        return text


class GuestBootError(GuestError):
    """The guest never came to the command."""


class GuestCrash(GuestError):
    """The guest ended before the command did: a kernel panic, for example."""


class GuestTimeout(GuestError):
    """The command took longer than allowed; the guest was killed."""


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

    ``timeout`` limits the command, ``boot_timeout`` what comes before it. ``share`` are existing
    directories in which the guest's writes reach the host. ``icount`` counts time in instructions
    of one CPU, a nanosecond each. ``parallel`` emulates the CPUs at the same time even where that
    crashes the guest now and then, see ``_emulation``. ``stdout`` and ``stderr`` get the output while it comes; the
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
        qemu = _emulation(parallel)
    if qemu:
        virtme.append("--disable-kvm")
    script = _Script(
        kernel=kernel,
        argv=tuple(argv),
        cwd=Path(cwd or Path.cwd()).resolve(),
        env=env or {},
        share=tuple(Path(path).resolve() for path in share),
    )
    with Guest(script, sinks={"stdout": stdout, "stderr": stderr}) as guest:
        guest.start(virtme, [*qemu, *qemu_args], kernel_args, memory)
        return guest.wait(timeout=timeout, boot_timeout=boot_timeout)


class Guest:
    """One boot for one command. A context manager: leaving it kills what still runs."""

    def __init__(self, script: _Script, *, sinks: Mapping[str, Sink | None]) -> None:
        self.script = script
        self.kernel = script.kernel
        self._sinks = sinks
        self._output = {name: bytearray() for name in ("console", "stdout", "stderr", "status")}
        self._process: subprocess.Popen[bytes] | None = None
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
        busybox = _program("busybox")
        (self.control / "init").write_text(self.script.init(busybox, self.control))
        (self.control / "setup").write_text(self.script.setup(busybox))
        ends = {name: self._pipe(name) for name in self._output}
        command = [
            _program("virtme-run"),
            f"--kimg={self.kernel.image}",
            *("--mods=auto", "--force-9p", "--disable-monitor"),
            "--overlay-rwdir=/",  # brings the overlay module into the initramfs
            *virtme_args,
            *("--qemu-opts", "-no-reboot"),
        ]
        through_virtiofs = virtiofs.needed(self.kernel)
        if not through_virtiofs:
            command += _export("mkwrite.root", Path("/"), "readonly=on")
            for number, path in enumerate(self.script.share):
                command += _export(f"mkwrite.share{number}", path, "readonly=off")
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
        lease, leash = os.pipe()
        self._cleanup.callback(os.close, leash)
        self._cleanup.callback(self.kill)
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _LEASH, str(self.control), *command],
            stdin=lease,
            stdout=ends["console"],
            stderr=ends["console"],
            pass_fds=tuple(ends.values()),
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(self.control / "tmp")},
        )
        for end in (lease, *ends.values()):
            os.close(end)

    def wait(self, *, timeout: float | None, boot_timeout: float) -> GuestResult:
        """Stream the output until the command has ended, and stop the guest."""
        assert self._process is not None
        booted: float | None = None
        deadline = self._started + boot_timeout
        while True:
            gone = self._process.poll() is not None  # all that it wrote is in the pipes by now
            moved = self._pump(0 if gone else 1)
            now = time.monotonic()
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
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

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


@dataclass(frozen=True)
class _Script:
    """What the guest does, as shell scripts for busybox."""

    kernel: Kernel
    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    share: tuple[Path, ...]

    @property
    def options(self) -> str:
        """How to mount 9p. Before 5.17 it reads a page at a time, and a large msize is costly."""
        msize = 512000 if version_key(self.kernel.release) >= (5, 17) else 32768
        return f"trans=virtio,version=9p2000.L,access=any,msize={msize}"

    def mount(self, tag: str, place: str, *, writable: bool = False) -> str:
        """The command that mounts a host directory."""
        if virtiofs.needed(self.kernel):
            return virtiofs.mount(tag, place, writable=writable)
        options = f"cache=mmap,{self.options}" if writable else f"ro,cache=loose,{self.options}"
        return f"$busybox mount -t 9p -o {options} {tag} {place}"

    def init(self, busybox: str, control: Path) -> str:
        """From virtme-ng's root, which has no page cache, to an overlay over one that has."""
        root = virtiofs.ROOT_TAG if virtiofs.needed(self.kernel) else "mkwrite.root"
        mount = self.mount(root, "$new/lower")
        return _INIT.format(busybox=busybox, control=shlex.quote(str(control)), mount=mount)

    def setup(self, busybox: str) -> str:
        """Makes the root a usable system, runs the command, and reports its exit code."""
        # The guest's own /tmp hides the host's, but for these.
        wanted = {self.cwd, self.kernel.path, Path(sys.prefix), Path(sys.base_prefix)}
        hidden = sorted(path for path in wanted if path.is_relative_to("/tmp"))
        environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LC_ALL": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.env,
        }
        return _SETUP.format(
            busybox=busybox,
            mount=self.mount('"mkwrite.share$n"', '"$dir"', writable=True),
            kernel=shlex.quote(str(self.kernel.path)),
            keep=shlex.join(map(str, hidden)),
            share=shlex.join(map(str, self.share)),
            env=_program("env"),
            environment=shlex.join(f"{name}={value}" for name, value in environment.items()),
            cwd=shlex.quote(str(self.cwd)),
            command=shlex.join(self.argv),
        )


_INIT = """\
set -e
busybox={busybox}
new={control}/root
$busybox mount -t tmpfs tmpfs $new
$busybox mkdir $new/lower $new/upper $new/work $new/root
{mount}
$busybox mount -t overlay -o xino=off,lowerdir=$new/lower,upperdir=$new/upper,workdir=$new/work \\
    overlay $new/root
cd $new/root
$busybox mount --move . /
exec $busybox chroot . $busybox sh {control}/setup
"""

_SETUP = """\
set -e
busybox={busybox}
n=0
for dir in {keep}; do
    n=$((n + 1))
    $busybox mkdir -p "/run/mkwrite/$n"
    $busybox mount --bind "$dir" "/run/mkwrite/$n"
done
$busybox mount -t tmpfs -o mode=1777,size=75% tmpfs /tmp
n=0
for dir in {keep}; do
    n=$((n + 1))
    $busybox mkdir -p "$dir"
    $busybox mount --move "/run/mkwrite/$n" "$dir"
done
$busybox mount -t tmpfs -o mode=755 tmpfs /run
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/ttyS0 2>&1
$busybox mkdir -p /dev/pts /dev/shm
$busybox mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$busybox mount -t tmpfs -o mode=1777 tmpfs /dev/shm
$busybox mount -t debugfs debugfs /sys/kernel/debug
$busybox mount -t tracefs tracefs /sys/kernel/tracing
$busybox mount -t securityfs securityfs /sys/kernel/security
$busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
$busybox mount -t bpf bpf /sys/fs/bpf
[ -e /dev/loop-control ] || $busybox mknod /dev/loop-control c 10 237
[ -e /dev/fuse ] || $busybox mknod /dev/fuse c 10 229
$busybox ln -s /proc/self/fd /dev/fd
$busybox ln -s /proc/self/fd/0 /dev/stdin
$busybox ln -s /proc/self/fd/1 /dev/stdout
$busybox ln -s /proc/self/fd/2 /dev/stderr
release=$($busybox uname -r)
if [ ! -e "/lib/modules/$release" ]; then
    $busybox mkdir -p /lib/modules
    $busybox ln -s {kernel}/lib/modules/"$release" /lib/modules/
fi
$busybox mkdir -p /boot
$busybox ln -sf {kernel}/boot/config-* /boot/
n=0
for dir in {share}; do
    $busybox mkdir -p "$dir"
    {mount}
    n=$((n + 1))
done
$busybox hostname guest
$busybox ip link set lo up
for port in /sys/class/virtio-ports/*; do
    [ -e "$port/name" ] || continue
    read -r name <"$port/name"
    case $name in
    mkwrite.stdout) stdout=/dev/${{port##*/}} ;;
    mkwrite.stderr) stderr=/dev/${{port##*/}} ;;
    mkwrite.status) status=/dev/${{port##*/}} ;;
    esac
done
exec 3>"$status"
# A port takes one writer; a pipe before it can be inherited and opened by any number.
$busybox mkfifo /run/mkwrite.stdout /run/mkwrite.stderr
$busybox cat </run/mkwrite.stdout >"$stdout" 3>&- &
cats=$!
$busybox cat </run/mkwrite.stderr >"$stderr" 3>&- &
cats="$cats $!"
set +e
echo booted >&3
# By its path, because busybox would run its own env, and its own version of the command.
(cd {cwd} && exec {env} -i {environment} {command}) \\
    >/run/mkwrite.stdout 2>/run/mkwrite.stderr 3>&-
code=$?
# What the command left running may hold the pipes open; it is not waited for long.
($busybox sleep 5; kill $cats) 3>&- 2>/dev/null &
wait $cats
for dir in {share}; do
    $busybox sync -f "$dir"
done
echo $code >&3
while :; do $busybox sleep 1000; done
"""


def _export(tag: str, path: Path, mode: str) -> list[str]:
    """QEMU's options for a host directory that the guest can mount as 9p."""
    name = str(path).replace(",", ",,")
    backend = f"local,id={tag},path={name},security_model=none,multidevs=remap,{mode}"
    return ["-fsdev", backend, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _emulation(parallel: bool) -> list[str]:
    """QEMU's options for emulation.

    Before 8.1, QEMU may run code that another CPU is just patching in a half patched state, and a
    kernel patches its code often, above all while it is traced: "Oops: int3". With one thread for
    all CPUs that cannot happen.
    """
    version = subprocess.run(
        [_program("qemu-system-x86_64"), "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"version (\d+)\.(\d+)", version)
    fixed = found is not None and (int(found[1]), int(found[2])) >= (8, 1)
    return ["-accel", f"tcg,thread={'multi' if parallel or fixed else 'single'}"]


def _program(name: str) -> str:
    """A program beside the running interpreter, that is in its venv, or on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise GuestError(f"{name} is not installed (for {sys.executable} or on the PATH)")
    return found


def kvm_works(kernel: Kernel) -> bool:
    """Whether KVM can boot a stock kernel here; what /dev/kvm promises is not enough.

    Some nested or restricted hosts offer KVM, and then QEMU fails or a kernel hangs early. So boot
    one, without a root: it must come to its panic for want of a root. Known until the next boot.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    memory = cache_dir() / "kvm"
    with contextlib.suppress(FileNotFoundError, ValueError):
        known, verdict = memory.read_text().split()
        if known == boot:
            return verdict == "yes"
    argv = [
        *(_program("qemu-system-x86_64"), "-machine", "q35,accel=kvm", "-cpu", "host", "-m", "1G"),
        *("-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(kernel.image), "-append", "console=ttyS0 panic=-1"),
    ]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
        works = b"Unable to mount root" in done.stdout
    except subprocess.TimeoutExpired:
        works = False
    if not works:
        say("KVM cannot boot this kernel here: using emulation, which is slow")
    memory.write_text(f"{boot} {'yes' if works else 'no'}\n")
    return works
