"""Host directories for guests whose kernel has no 9p, as Debian's for clouds: through virtiofs, which they have.

A virtiofsd for each directory runs beside QEMU, in its process group, and ends with it.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from .kernel import Kernel

#: virtme-ng's initramfs mounts the root under this name.
ROOT_TAG = "ROOTFS"
#: QEMU's own before 8.0, Debian's package virtiofsd since.
_DAEMONS = (Path("/usr/libexec/virtiofsd"), Path("/usr/lib/qemu/virtiofsd"))


def needed(kernel: Kernel) -> bool:
    """Whether the kernel cannot mount 9p."""
    return kernel.config.exists() and "CONFIG_NET_9P=" not in kernel.config.read_text()


def daemon() -> Path:
    """Virtiofsd. Raises FileNotFoundError."""
    found = next((path for path in _DAEMONS if path.exists()), None)
    if found is None:
        raise FileNotFoundError("virtiofsd is not installed: its package is virtiofsd, or qemu-system-common before")
    return found


def mount(tag: str, place: str, *, writable: bool) -> str:
    """The command that mounts a directory in the guest."""
    return f"$busybox mount -t virtiofs -o {'rw' if writable else 'ro'} {tag} {place}"


def wrapped(command: Sequence[str], directories: Sequence[tuple[str, Path]], control: Path, memory: str) -> list[str]:
    """QEMU's command line behind the daemons: waits for their sockets, which are in ``control``.

    QEMU has to share the guest's ``memory`` with them. Raises FileNotFoundError without a virtiofsd.
    """
    program = daemon()
    options = ["-object", f"memory-backend-memfd,id=shared,size={memory},share=on", "-numa", "node,memdev=shared"]
    lines = []
    for number, (tag, path) in enumerate(directories):
        socket = control / f"virtiofs{number}"
        source = f"source={path},sandbox=chroot,cache=auto"
        run = shlex.join([str(program), "-f", f"--socket-path={socket}", "-o", source])
        lines += [f"{run} &", f"until [ -S {shlex.quote(str(socket))} ]; do sleep 0.05; done"]
        options += ["-chardev", f"socket,id=virtiofs{number},path={socket}"]
        options += ["-device", f"vhost-user-fs-pci,chardev=virtiofs{number},tag={tag}"]
    return ["/bin/sh", "-c", "\n".join([*lines, 'exec "$@"']), "sh", *command, *options]
