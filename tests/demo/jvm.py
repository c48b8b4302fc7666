#!/usr/bin/env python3
"""A JVM whose statistics file is on a busy disk, as in docs/jvm-pauses.md: tests/demo/jvm.py [SERIES].

The JVM keeps its counters in a file that it has mapped, /tmp/hsperfdata_USER/PID, and stores to it in pauses of the
garbage collector, among others. Here that directory is on a disk that takes 400 ms for a write, and that wants pages to
stay as they are meanwhile; something else has data written to it every second. Needs openjdk-17-jdk-headless.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

PLACE = Path("/tmp/hsperfdata_root")
DELAY_MS = 400
GC_LOG = Path("/tmp/gc.log")
JAVA = ("java", "-Xint", "-XX:+UseSerialGC", "-Xmx16m", f"-Xlog:gc:file={GC_LOG}:uptime")


def show(*arguments: str) -> None:
    """Run a command of mkwrite as one would type it."""
    print(f"\n$ mkwrite {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "tracer", *arguments], env=os.environ | {"COLUMNS": "118"}, check=True)


def inside(classes: str) -> None:
    """In the guest: the disk, the JVM, and what mkwrite says."""
    from tests.live.guest import run
    from tests.live.slow_disk import Device

    run("modprobe", "ext4")
    disk = Device("busy", 64, DELAY_MS, ("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0"))
    disk.keep_pages_stable(True)
    PLACE.mkdir()
    run("mount", str(disk.path), str(PLACE))
    over = threading.Event()

    def write() -> None:
        while not over.wait(1):
            (PLACE / "other").write_bytes(os.urandom(4096))
            run("sync", "-f", str(PLACE))

    writer = threading.Thread(target=write)
    with subprocess.Popen([*JAVA, "-cp", classes, "Pauses"], stdout=subprocess.PIPE, text=True) as java:
        try:
            while not (PLACE / str(java.pid)).exists():
                time.sleep(0.2)
            writer.start()
            time.sleep(20)
            print("$ grep -E ' [0-9]{3}[.][0-9]+ms' /tmp/gc.log | tail -n 3")
            print("\n".join(re.findall(r".* \d{3}\.\d+ms", GC_LOG.read_text())[-3:]))
            show("trace", "--slower", "100ms", "-n", "4", "--pid", str(java.pid))
            show("waits", "-d", "10s", "--stacks", "--pid", str(java.pid))
            over.set()
            writer.join()
            # At last the disk does not answer at all.
            with disk.stopped():
                last = threading.Thread(target=run, args=("sync", "-f", str(PLACE)))
                last.start()
                show("stuck", "--once")
            last.join()
        finally:
            over.set()
            java.kill()


def main() -> int:
    """Boot a guest and run it there."""
    if sys.argv[1:2] == ["--inside"]:
        inside(sys.argv[2])
        return 0
    from tests.vm.guest import run_guest
    from tests.vm.kernels import get_kernel
    from tests.vm.prepare import prepare

    kernel = get_kernel(sys.argv[1] if len(sys.argv) > 1 else "6.12")
    here = Path(__file__).parent
    with tempfile.TemporaryDirectory(prefix="mkwrite-jvm-") as share:
        subprocess.run(["javac", "-d", share, here / "Pauses.java"], check=True)
        prepare(kernel.image, Path(share, "cache"))
        env = {"CACHE_DIRECTORY": f"{share}/cache", "PYTHONPATH": str(ROOT)}
        # What the devices of the live tests come with.
        for name in ("workload", "waiter"):
            env[name.upper()] = f"{share}/{name}"
            source = here.parent / "live" / f"{name}.c"
            subprocess.run(["cc", "-O2", "-static", "-pthread", "-o", f"{share}/{name}", source], check=True)
        result = run_guest(
            kernel,
            [sys.executable, __file__, "--inside", share],
            cpus=2,
            timeout=900,
            cwd=ROOT,
            env=env,
            share=[share, ROOT],
            stdout=lambda data: print(data.decode(errors="replace"), end="", flush=True),
            stderr=lambda data: print(data.decode(errors="replace"), end="", file=sys.stderr, flush=True),
        )
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
