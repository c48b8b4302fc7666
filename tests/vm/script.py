"""What a guest does from its first process on, as shell scripts for busybox."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from . import virtiofs
from .archive import version_key
from .emulator import program
from .kernel import Kernel


@dataclass(frozen=True)
class Script:
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
            env=program("env"),
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
