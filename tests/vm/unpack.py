"""Unpacking a kernel's packages into what a guest boots from: one layout, an index of modules, what is slow undone."""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess

from .archive import KernelError, run
from .kernel import Kernel

#: Modules that a guest loads; uncompressed, since unpacking is slow under emulation.
_UNPACKED = (
    *("arch", "block", "crypto", "fs", "lib", "mm", "net"),
    *("drivers/block", "drivers/char", "drivers/dax", "drivers/input", "drivers/md"),
    *("drivers/nvdimm", "drivers/scsi", "drivers/virtio"),
)


def tidy(kernel: Kernel) -> None:
    """Bring an unpacked package into the one layout of the cache and index its modules."""
    usr = kernel.path / "usr"
    for name in ("lib/modules", "boot"):
        if (usr / name).is_dir():
            (kernel.path / name).parent.mkdir(parents=True, exist_ok=True)
            (usr / name).rename(kernel.path / name)
    shutil.rmtree(usr, ignore_errors=True)
    if not kernel.image.exists():
        for image in kernel.modules.glob("vmlinuz*"):
            kernel.image.parent.mkdir(exist_ok=True)
            image.rename(kernel.image)
    if not kernel.image.exists() or not kernel.modules.is_dir():
        raise KernelError(f"the packages of {kernel.release} hold no kernel image or no modules")
    if (config := kernel.modules / "config").exists():  # here since 7.0, in /boot before
        shutil.copy(config, kernel.config)
    _unpack_image(kernel)
    for directory in _UNPACKED:
        for suffix, unpack in (("xz", ["xz", "-d"]), ("zst", ["zstd", "-q", "-d", "--rm"])):
            files = (kernel.modules / "kernel" / directory).rglob(f"*.ko.{suffix}")
            if names := [str(file) for file in files]:
                run([*unpack, *names])
    run(["depmod", "-b", str(kernel.path), kernel.release])


def _unpack_image(kernel: Kernel) -> None:
    """Decompress the kernel here, which takes a second, and not in each guest, which takes ten.

    The layout is in Documentation/arch/x86/boot.rst. QEMU boots the ELF file through its PVH note;
    without that, or with a compression unknown here, guests boot the original image.
    """
    image = kernel.image.read_bytes()
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    if not kernel.config.exists() or "CONFIG_PVH=y" not in kernel.config.read_text():
        return
    if payload.startswith(b"\xfd7zXZ"):
        elf = lzma.LZMADecompressor().decompress(payload)
    elif payload.startswith(b"\x28\xb5\x2f\xfd") and shutil.which("zstd"):
        argv = ["zstd", "-q", "-d"]
        # The payload ends with its decompressed size, which is not zstd's.
        elf = subprocess.run(argv, input=payload[:-4], stdout=subprocess.PIPE, check=False).stdout
    else:
        return
    if elf.startswith(b"\x7fELF"):
        kernel.unpacked_image.write_bytes(elf)
