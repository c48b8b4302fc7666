"""Counters of the exporter never go backwards, while filesystems come and go by the thousand, or a module."""

from __future__ import annotations

import ctypes
import mmap
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.live.guest import ROOT, load_modules, run, workload
from tests.live.test_export import exporter, get, value
from tests.observability.prometheus import Prometheus, eventually

#: Filesystems that are mounted at a time, and how often others take their devices: 1,023 together.
BATCH, BATCHES = 31, 33
#: Fewer series than that.
ROOM = 40
#: From one touched page to the next: no large folio covers two.
STRIDE = 256 << 10

#: Counters by name and labels, as they are written.
Samples = dict[str, float]

_libc = ctypes.CDLL(None, use_errno=True)


def mount(device: str, place: Path) -> None:
    """By the system call: starting a program takes a guest longer than all the rest."""
    if _libc.mount(device.encode(), bytes(place), b"ext4", 0, None):
        raise OSError(ctypes.get_errno(), f"mount {device} {place}")


def umount(place: Path) -> None:
    """By the system call, too."""
    if _libc.umount2(bytes(place), 0):
        raise OSError(ctypes.get_errno(), f"umount {place}")


def write(place: Path, number: int) -> None:
    """So many calls, and nothing stays."""
    path = place / "file"
    with path.open("w+b") as stream:
        stream.truncate(number * STRIDE)
        with mmap.mmap(stream.fileno(), 0) as memory:
            for at in range(0, number * STRIDE, STRIDE):
                memory[at] = 1
    path.unlink()


@pytest.fixture
def devices() -> Iterator[list[str]]:
    """Loop devices of small filesystems, all copies of one."""
    load_modules("loop", "ext4")
    # What unmounting takes is waiting for other CPUs, mostly.
    Path("/sys/kernel/rcu_expedited").write_text("1")
    first = Path("/tmp/churn-0.img")
    with first.open("wb") as stream:
        stream.truncate(1 << 20)
    run("mkfs.ext4", "-q", "-b", "4096", "-O", "^has_journal", str(first))
    images = [first, *(Path(shutil.copy(first, f"/tmp/churn-{number}.img")) for number in range(1, BATCH))]
    found = [run("losetup", "--find", "--show", str(image)).strip() for image in images]
    yield found
    Path("/sys/kernel/rcu_expedited").write_text("0")
    run("losetup", "--detach", *found)
    for image in images:
        image.unlink()


def samples(text: str) -> Samples:
    """Every sample that must not go backwards. A parser of the whole format takes a guest too long."""
    found, counts = {}, False
    for line in text.splitlines():
        if line.startswith("#"):
            counts = line.startswith("# TYPE mkwrite_") and line.endswith((" counter", " histogram"))
        elif counts:
            key, _, number = line.rpartition(" ")
            found[key] = float(number)
    return found


class Watch:
    """Reads the metrics all the time, and what was seen of each counter must not become less."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.highest: Samples = {}
        self.wrong: list[str] = []
        self.scrapes = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def look(self) -> Samples:
        """What a scrape brings that began after this was called."""
        with self._lock:
            now = samples(get(self._address))
            self.wrong += [f"{key}: {now[key]}" for key, seen in self.highest.items() if now.get(key, seen) < seen]
            self.highest |= now
            self.scrapes += 1
            return now

    def _run(self) -> None:
        while not self._over.wait(3):
            self.look()


def by_place(samples: Samples, name: str) -> Counter[str]:
    """The values of a counter, by mount point."""
    found: Counter[str] = Counter()
    for key, number in samples.items():
        if key.startswith(f"{name}{{") and (place := re.search(r'mountpoint="(.*?)"', key)):
            found[place[1]] += int(number)
    return found


def lost(samples: Samples) -> Samples:
    """What the tracer missed."""
    return {key: number for key, number in samples.items() if key.startswith("mkwrite_lost_total{") and number}


@pytest.mark.nightly
@pytest.mark.usefixtures("clean_kernel")
def test_a_thousand_filesystems_come_and_go_each_at_a_place_of_its_own(devices: list[str]) -> None:
    began, made, most = time.monotonic(), Counter[str](), 0
    with (
        exporter("--max-sources", str(ROOM)) as (_, address),
        Watch(address) as watch,
        ThreadPoolExecutor(8) as pool,
    ):
        for batch in range(BATCHES):
            places = [ROOT / f"churn-{batch}-{number}" for number in range(BATCH)]
            for place in places:
                place.mkdir(parents=True)
            list(pool.map(mount, devices, places))
            for number, place in enumerate(places):
                write(place, 1 + (batch + number) % 5)
                made[str(place)] = 1 + (batch + number) % 5
            shown = by_place(now := watch.look(), "mkwrite_calls_total")
            dirtied = by_place(now, "mkwrite_dirtied_bytes_total")
            assert [shown[str(place)] for place in places] == [made[str(place)] for place in places]
            assert [dirtied[str(place)] for place in places] == [made[str(place)] * mmap.PAGESIZE for place in places]
            most = max(most, len(shown))
            list(pool.map(umount, places))
        assert value(get(address), "mkwrite_series_dropped") == 0
        assert lost(watch.look()) == {}
    # Each was seen with all of its calls before it made room for others.
    counted = by_place(watch.highest, "mkwrite_calls_total")
    print(
        f"{len(made)} filesystems, {made.total()} calls, {sum(counted[place] for place in made)} counted, "
        f"{most} shown at most, {watch.scrapes} scrapes, {time.monotonic() - began:.0f} s"
    )
    assert watch.wrong == []
    assert {place: counted[place] for place in made} == made
    assert BATCH < most <= ROOM


@pytest.mark.nightly
@pytest.mark.usefixtures("clean_kernel")
def test_a_thousand_filesystems_come_and_go_at_one_place(devices: list[str]) -> None:
    began, place, made, named = time.monotonic(), ROOT / "churn", 0, 0
    place.mkdir(parents=True)
    with exporter() as (_, address), Watch(address) as watch:
        for number in range(BATCH * BATCHES):
            mount(devices[number % BATCH], place)
            write(place, 1 + number % 3)
            made += 1 + number % 3
            if not number % BATCH:  # whoever looks meanwhile has the name
                watch.look()
                named += 1 + number % 3
            umount(place)
        now = watch.look()
    # The exporter looks at the mounts five times a second, and keeps what it has seen of a device. One that was never
    # there when it looked has no mount point.
    names = {str(place), ""}
    counted, dirtied = (by_place(now, f"mkwrite_{name}_total") for name in ("calls", "dirtied_bytes"))
    print(
        f"{BATCH * BATCHES} filesystems, {made} calls, {counted.total()} counted, "
        f"{counted['']} of them without a name, {watch.scrapes} scrapes, {time.monotonic() - began:.0f} s"
    )
    assert watch.wrong == [] and lost(now) == {}
    assert counted.keys() <= names and counted.total() == made
    assert counted[str(place)] >= named
    assert sum(dirtied[name] for name in names) == made * mmap.PAGESIZE


@pytest.mark.nightly
@pytest.mark.usefixtures("clean_kernel")
def test_counts_stay_when_the_module_goes_and_go_on_when_it_comes_back() -> None:
    place = ROOT / "module"
    place.mkdir(parents=True)
    image = Path("/tmp/module.img")
    with image.open("wb") as stream:
        stream.truncate(160 << 20)
    run("mkfs.nilfs2", "-q", str(image))
    load_modules("loop")
    # One that is there already would be held by what is attached to its functions.
    if Path("/sys/module/nilfs2").exists():
        run("rmmod", "nilfs2")
    made = 0
    with exporter("--fs", "nilfs2") as (_, address), Watch(address) as watch:
        for number in (7, 11, 13):
            load_modules("nilfs2")
            run("mount", "-i", "-o", "loop", str(image), str(place))
            workload("first-write", place / f"file-{number}", number)
            made += number
            assert by_place(watch.look(), "mkwrite_calls_total")[str(place)] == made
            run("umount", str(place))
            run("rmmod", "nilfs2")
            assert by_place(watch.look(), "mkwrite_calls_total")[str(place)] == made
    assert watch.wrong == [] and lost(watch.highest) == {}
    # Each time it was loaded elsewhere.
    handlers = {match[1] for key in watch.highest if (match := re.search('handler="(.*?)"', key)) and str(place) in key}
    assert handlers == {"nilfs_page_mkwrite"}


def seen(server: Prometheus, expression: str, number: int) -> None:
    """Wait until the server knows."""
    eventually(lambda: server.value(expression) == number, f"{server.value(expression)} instead of {number}")


@contextmanager
def at(port: int) -> Iterator[str]:
    """An exporter at this port."""
    with exporter("--listen", f"127.0.0.1:{port}") as (process, address):
        yield address
        process.send_signal(signal.SIGTERM)
        assert process.wait(300) == 0


@pytest.mark.nightly
@pytest.mark.usefixtures("clean_kernel")
def test_a_restart_is_seen_as_a_reset(mounts: dict[str, Path], tmp_path: Path) -> None:
    place = mounts["ext4"]
    selector = f'mkwrite_calls_total{{mountpoint="{place}",outcome="writable",path="first_write"}}'
    port = 9788
    with Prometheus(tmp_path, {"mkwrite": f"127.0.0.1:{port}"}) as server:
        # The counter begins with 2, of which increase() knows nothing; then 60, and after the restart 31 from nothing.
        for first, more in ((2, 60), (31, 0)):
            with at(port):
                workload("first-write", place / "reset-first", first)
                seen(server, selector, first)
                if more:
                    workload("first-write", place / "reset-more", more)
                    seen(server, selector, first + more)
        assert server.value(f"resets({selector}[30m])") == 1
        points = server.query(f"{selector}[30m]")[0]["values"]
    values = [float(number) for _, number in points]
    grown = sum(now - before if now >= before else now for before, now in pairwise(values))
    assert (values[0] <= 2, values[-1], grown) == (True, 31, 60 + 31 + 2 - values[0])
