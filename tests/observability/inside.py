"""In a guest: filesystems under load, frozen now and then, one of them full, and what a Prometheus server makes of it.

``python -m tests.observability.inside PAGE MINUTES``
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.live.guest import WORKLOAD, frozen, load_modules, run
from tests.live.refusals import SIZE, VICTIM, fill
from tests.live.test_export import exporter, get
from tests.observability.panels import DASHBOARDS, queries
from tests.observability.prometheus import Prometheus

RULES = [DASHBOARDS / name for name in ("rules.yml", "alerts.yml")]
#: Rules of what only the tracepoint backend tells.
OTHER_BACKEND = {"instance:mkwrite_sigbus:rate5m", "instance:mkwrite_throttle_seconds:rate5m"}
#: Type, and size in MiB, by mount point.
FILESYSTEMS = {
    "/srv/ledger": ("ext4", 96),
    "/srv/index": ("xfs", 320),
    "/srv/mail": ("btrfs", 160),
    "/srv/small": ("ext4", 16),
}


def mount_all() -> None:
    """Loop images on tmpfs."""
    run("mount", "-t", "tmpfs", "none", "/srv")
    load_modules("loop", "ext4", "xfs", "btrfs")
    for place, (fstype, mib) in FILESYSTEMS.items():
        Path(place).mkdir()
        image = Path(f"{place}.img")
        with image.open("wb") as stream:
            stream.truncate(mib << 20)
        run(f"mkfs.{fstype}", "-q", str(image))
        run("mount", "-o", "loop", str(image), place)


@contextmanager
def repeated(pause_s: float, work: Callable[[], object]) -> Iterator[None]:
    """Done again and again in a thread, with pauses."""
    over = threading.Event()

    def loop() -> None:
        while not over.wait(pause_s):
            work()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def write(place: str) -> None:
    """First writes, and writes to pages that are mapped read-only."""
    path = f"{place}/data"
    for what, number in (("first-write", 53), ("write-after-read", 31)):
        subprocess.run([WORKLOAD, what, path, str(number)], check=True, stdout=subprocess.DEVNULL)
    Path(path).unlink()


def freeze() -> None:
    """For seconds, as a snapshot of the volume does."""
    with frozen(Path("/srv/ledger")):
        time.sleep(3)


def refuse() -> None:
    """A store to a file on a full filesystem."""
    command = [VICTIM, "store", "/srv/small/hole", str(SIZE), "40961"]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)


def shown(result: list[dict[str, Any]]) -> str:
    """How many series, and from where to where their values go."""
    values = sorted(float(one["value"][1]) for one in result)
    ends = [f"{value:.4g}" for value in dict.fromkeys((values[0], values[-1]))]
    return f"{len(result)} | {' to '.join(ends)}"


def main() -> int:
    """Run it."""
    page, minutes = Path(sys.argv[1]), int(sys.argv[2])
    mount_all()
    fill(Path("/srv/small"))
    with ExitStack() as stack:
        # The exporter of these tests sees ext4 alone, unless it is told of others.
        _, address = stack.enter_context(exporter("--fs", "xfs", "--fs", "btrfs", "--risk"))
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Prometheus(directory, {"mkwrite": address}, RULES, 15))
        with ExitStack() as load:
            for number, place in enumerate(FILESYSTEMS):
                if place != "/srv/small":
                    load.enter_context(repeated(0.3 + number, partial(write, place)))
            load.enter_context(repeated(5, lambda: run("sync", "-f", "/srv/ledger")))
            load.enter_context(repeated(100, freeze))
            load.enter_context(repeated(60, refuse))
            time.sleep(60 * minutes)
            print(f"\nAfter {minutes} minutes:\n\n| panel | series | values |\n|---|---:|---|")
            empty = []
            for query in queries():
                found = server.query(query.expanded())
                print(f"| {query.panel} | {shown(found) if found else '0 | '} |")
                empty += [] if found else [query.panel]
            print("\n| recording rule | series | values |\n|---|---:|---|")
            for rule in (r for group in yaml.safe_load(RULES[0].read_text())["groups"] for r in group["rules"]):
                if rule["record"] in OTHER_BACKEND:
                    continue
                found = server.query(rule["record"])
                print(f"| `{rule['record']}` | {shown(found) if found else '0 | '} |")
                empty += [] if found else [rule["record"]]
            print(f"\nAlerts that fire: {', '.join(sorted(server.alerts())) or 'none'}.")
            page.write_text(get(address, "/"))
    print(f"Without data: {', '.join(empty) or 'nothing'}.")
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main())
