"""How QEMU is started here: with KVM where that boots stock kernels, else emulating."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .archive import say
from .kernel import Kernel
from .kernels import cache_dir


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


def export(tag: str, path: Path, mode: str) -> list[str]:
    """QEMU's options for a host directory that the guest can mount as 9p."""
    name = str(path).replace(",", ",,")
    backend = f"local,id={tag},path={name},security_model=none,multidevs=remap,{mode}"
    return ["-fsdev", backend, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def emulation(parallel: bool) -> list[str]:
    """QEMU's options for emulation.

    Before 8.1, QEMU may run code that another CPU is just patching in a half patched state, and a
    kernel patches its code often, above all while it is traced: "Oops: int3". With one thread for
    all CPUs that cannot happen.
    """
    version = subprocess.run(
        [program("qemu-system-x86_64"), "--version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"version (\d+)\.(\d+)", version)
    fixed = found is not None and (int(found[1]), int(found[2])) >= (8, 1)
    return ["-accel", f"tcg,thread={'multi' if parallel or fixed else 'single'}"]


def program(name: str) -> str:
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
        *(program("qemu-system-x86_64"), "-machine", "q35,accel=kvm", "-cpu", "host", "-m", "1G"),
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
