"""``make demo``: trace real filesystems on a stock Debian kernel in a guest; nothing of this machine is traced."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from tests.vm.archive import KernelError
from tests.vm.emulator import GuestError
from tests.vm.guest import run_guest
from tests.vm.kernels import get_kernel
from tests.vm.prepare import prepare
from tracer.errors import MkwriteError
from tracer.model.hooks import Backend

SERIES = "6.12"
_ROOT = Path(__file__).resolve().parents[2]
_INSIDE = Path(__file__).resolve().with_name("inside.py")


def main() -> int:
    """Fetch a kernel, compile for it, boot it, and show what happens there."""
    notes = Console(stderr=True, highlight=False)
    if os.geteuid():
        notes.print("The demonstration needs root, since BCC makes BPF maps while it compiles.", style="red")
        notes.print("Run it as root: sudo make demo")
        return 1
    signal.signal(signal.SIGTERM, _terminated)
    size = shutil.get_terminal_size((100, 40))
    try:
        notes.print("[bold]1/4[/] getting a stock Debian kernel (once: it is kept in ~/.cache/mkwrite)")
        kernel = get_kernel(SERIES)
        with tempfile.TemporaryDirectory(prefix="mkwrite-demo-") as share:
            with notes.status(f"[bold]2/4[/] compiling the BPF programs for {kernel.release}"):
                prepare(kernel.image, Path(share, "cache"), Backend.FENTRY)
            notes.print(f"[bold]2/4[/] compiled the BPF programs for {kernel.release}")
            notes.print("[bold]3/4[/] booting it in a guest, under software emulation half a minute to a minute")
            result = run_guest(
                kernel,
                [sys.executable, str(_INSIDE)],
                cpus=2,
                timeout=900,
                cwd=_ROOT,
                env={
                    "CACHE_DIRECTORY": str(Path(share, "cache")),
                    "COLUMNS": str(size.columns),
                    "LINES": str(size.lines),
                    "TERM": os.environ.get("TERM", "dumb"),
                    "DEMO_TERMINAL": "1" if sys.stdout.isatty() else "",
                    "PYTHONPATH": str(_ROOT),
                },
                share=[share, _ROOT],  # a checkout below /tmp would be hidden by the guest's own
                stdout=_write,
                stderr=_write_error,
            )
    except (GuestError, KernelError, MkwriteError) as error:
        notes.print(str(error), style="red", markup=False)
        return 1
    except KeyboardInterrupt:
        notes.print("Interrupted; the guest is gone.")
        return 130
    if result.returncode:
        notes.print(f"The demonstration failed in the guest (exit code {result.returncode}).", style="red")
        return 1
    notes.print(
        "\n[bold]That was a guest. To trace this machine itself:[/]\n"
        "  make install       as root: mkwrite in /opt/mkwrite, and python3-bpfcc\n"
        "  mkwrite doctor     what this kernel allows\n"
        "  mkwrite top        the live table"
    )
    return 0


def _terminated(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _write_error(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
