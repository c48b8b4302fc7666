"""Machines to install on: root file systems that are thrown away, each an overlay over another one.

All of it is mounted in a mount namespace of its own that ends with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PREFIX: Final = "/opt/mkwrite"
LINK: Final = "/usr/local/bin/mkwrite"
MANUAL: Final = "/usr/local/share/man/man1"
UNIT: Final = "/usr/local/lib/systemd/system/mkwrite-exporter.service"
#: As docs and messages have them: where there is no network, pip takes what it needs from a directory.
OFFLINE: Final = ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/mnt/wheels")
#: Not part of a root file system, or where the tests keep their own.
_OUTSIDE: Final = ("dev", "mnt", "proc", "run", "sys")
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PIP_RETRIES": "0",
}
#: Keeps the namespace while its standard input is open.
_HOLD: Final = 'mount -t tmpfs tmpfs "$1" && echo mounted && read -r _'
_MOUNT: Final = """\
set -e
mkdir -p "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
for name in dev proc sys; do mount --rbind "/$name" "$1/root/$name"; done
mkdir -p "$1/root/mnt/wheels"
mount --bind -o ro "$3" "$1/root/mnt/wheels"
"""
#: Prints every file of the root with what tells whether it is still the same.
_TREE: Final = """\
import json, os, sys
tree = {}
for top, directories, files in os.walk("/"):
    if top == "/":
        directories[:] = [name for name in directories if name not in sys.argv[1:]]
    for name in directories + files:
        path = os.path.join(top, name)
        status = os.lstat(path)
        tree[path] = [status.st_mode, status.st_uid, status.st_gid]
        if os.path.islink(path):
            tree[path].append(os.readlink(path))
        elif os.path.isfile(path):
            tree[path] += [status.st_size, status.st_mtime_ns]
print(json.dumps(tree))
"""
#: As systemd's, as far as an install can tell; a version that REFUSED names does not start.
_SYSTEMCTL: Final = """\
#!/bin/sh
echo "$*" >>/run/systemctl.calls
case $1 in
is-active) [ -e /run/active ] ;;
restart)
    rm -f /run/active
    mkwrite --version >/run/started
    ! grep -qsxFf /run/refused /run/started && touch /run/active
    ;;
esac
"""

Tree = dict[str, list[object]]


@dataclass(frozen=True)
class Machine:
    """One root file system; ``over`` are those that it lies over, the nearest first."""

    directory: Path
    over: tuple[Path, ...]
    host: Host

    def run(self, *command: str, user: str = "root", network: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        settings = [f"{name}={value}" for name, value in _ENVIRONMENT.items()]
        where = () if network else ("unshare", "--net")
        enter = (*self.host.enter, *where, "chroot", f"--userspec={user}", str(self.root))
        return subprocess.run(
            (*enter, "env", "-i", *settings, *command), capture_output=True, text=True, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip

    def shell(self, script: str) -> str:
        """Run a script that must succeed; what it printed."""
        done = self.run("sh", "-euc", script)
        assert done.returncode == 0, f"{script}: {done.stdout}{done.stderr}"
        return done.stdout

    def make(self, *arguments: str, source: str = "now", user: str = "root") -> subprocess.CompletedProcess[str]:
        """Run make in a copy of the sources."""
        return self.run("make", "--no-print-directory", "-C", f"/mnt/{source}", *arguments, user=user)

    def tree(self) -> Tree:
        """Every file in it."""
        found: Tree = json.loads(self.run("python3", "-c", _TREE, *_OUTSIDE).stdout)
        return found

    def start_systemd(self, *, active: bool) -> None:
        """From here on systemd seems to run, and the service, too, if it is ``active``."""
        self.shell("mkdir -p /run/systemd/system")
        self.write("/usr/bin/systemctl", _SYSTEMCTL)
        self.shell(f"chmod 755 /usr/bin/systemctl; {'touch' if active else 'rm -f'} /run/active")

    def systemctl_calls(self) -> list[str]:
        """How systemctl was called, in order."""
        return self.shell("touch /run/systemctl.calls; cat /run/systemctl.calls").splitlines()

    def write(self, path: str, text: str) -> None:
        """Write a file."""
        subprocess.run(
            (*self.host.enter, "chroot", str(self.root), "sh", "-c", 'cat >"$0"', path),
            input=text,
            text=True,
            check=True,
        )

    @property
    def root(self) -> Path:
        """Where it is, in the host's namespace."""
        return self.directory / "root"

    def clone(self) -> Machine:
        """Another one that begins with what this one has now; this one must not change from here on."""
        return self.host.machine(self.directory / "upper", *self.over)


class Host:
    """The mount namespace, and in it as many machines as one likes."""

    def __init__(self, pid: int, directory: Path, wheels: Path, sources: dict[str, Path]) -> None:
        self.enter = ("nsenter", f"--mount=/proc/{pid}/ns/mnt", "--")
        self._directory = directory
        self._wheels = wheels
        self._sources = sources
        self._machines = 0

    def machine(self, *over: Path) -> Machine:
        """A machine that begins with what lies at ``over``, the nearest first."""
        self._machines += 1
        machine = Machine(self._directory / str(self._machines), over, self)
        lower = ":".join(map(str, over))
        self._run("sh", "-c", _MOUNT, "sh", str(machine.directory), lower, str(self._wheels))
        for name, source in self._sources.items():
            target = machine.root / "mnt" / name
            self._run("mkdir", "-p", str(target))
            self._run("mount", "--bind", "-o", "ro", str(source), str(target))
        return machine

    def _run(self, *command: str) -> None:
        subprocess.run((*self.enter, *command), check=True)


@contextlib.contextmanager
def hosting(wheels: Path, sources: dict[str, Path]) -> Iterator[Host]:
    """A host whose machines see ``wheels`` and each of the ``sources``, read-only, below /mnt."""
    with tempfile.TemporaryDirectory(prefix="mkwrite-install-") as directory:
        command = ["unshare", "--mount", "sh", "-c", _HOLD, "sh", directory]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == "mounted\n"
            yield Host(holder.pid, Path(directory), wheels, sources)
            holder.stdin.close()
