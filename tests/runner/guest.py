"""The command of a part, in a guest: python -m tests.runner.guest PART SHARE SECONDS -- COMMAND ...

Compiles the BPF objects here, boots, and runs the command with what it prints passed on. ``SHARE`` is a directory in
which the guest may write. ``SECONDS`` is what a test may take: a guest that is silent for two of them is ended.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.filesystems.virtiofs import VirtiofsError, shared
from tests.runner.parts import ROOT, named
from tests.vm.archive import KernelError
from tests.vm.emulator import GuestError
from tests.vm.guest import run_guest
from tests.vm.kernels import get_kernel
from tests.vm.prepare import prepare

#: Half of it holds what tests write, such as the images of filesystems that are full.
_MEMORY = "4G"
#: 320 MiB of a guest's memory as a persistent one, for DAX; and the size of what it can mount as virtiofs.
_PMEM = "memmap=320M!1G"
_VIRTIOFS = "48M"


def main() -> int:
    """Run it. Its exit code is the command's."""
    part, share, test_s = named(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    try:
        kernel = get_kernel(part.series)
        prepare(kernel.image, share / "cache")
        print(f"booting {kernel.release}", flush=True)
        with ExitStack() as stack:
            result = run_guest(
                kernel,
                sys.argv[5:],
                cpus=part.cpus,
                memory=_MEMORY,
                timeout=None,
                # A test that hangs says so, its kernel permitting.
                silence=2 * test_s,
                cwd=ROOT,
                env={**environment(share), "CACHE_DIRECTORY": str(share / "cache")},
                share=[share, share.parent / "programs", ROOT],  # a checkout below /tmp would be hidden by the guest's
                kernel_args=[_PMEM] if part.matrix else [],
                qemu_args=stack.enter_context(shared(_VIRTIOFS, _MEMORY)) if part.matrix else [],
                stdout=_write,
                stderr=_write,
            )
    except (GuestError, KernelError, VirtiofsError, OSError, ValueError) as error:
        print(f"FAILED: {error}", flush=True)
        return 1
    print(f"{kernel.release}: booted in {result.boot_seconds:.0f} s, ran for {result.seconds:.0f} s", flush=True)
    return result.returncode


def environment(share: Path) -> dict[str, str]:
    """What the live tests find by the environment: the programs that the runner built, and this checkout."""
    programs = {path.stem.upper(): str(share.parent / "programs" / path.stem) for path in sources()}
    return {**programs, "RESULTS": str(share / "results.json"), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def sources() -> list[Path]:
    """The programs of the live tests in C."""
    return [path for path in (ROOT / "tests" / "live").glob("*.c") if not path.name.endswith(".bpf.c")]


def _write(data: bytes) -> None:
    os.write(sys.stdout.fileno(), data)


if __name__ == "__main__":
    sys.exit(main())
