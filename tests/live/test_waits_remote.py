"""Calls that wait for somebody else: a FUSE daemon, an NFS server, the cache of a network filesystem."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.filesystems.recipe import Since, now
from tests.filesystems.remote import cachefiles, nfsd
from tests.filesystems.stage import Stage, release
from tests.live.guest import eventually, frozen, run
from tests.live.hung_fuse import SIZE, fuse
from tests.live.slow_disk import Disk, Waiter, wait_out, write_out
from tests.live.watched import Watched
from tracer.latency.stuck import StuckCall, StuckCalls
from tracer.model.waits import Wait

pytestmark = pytest.mark.newest

PAGES = 61
_NUMBERS = count()
OTHER_USER = "1000"


def test_a_fuse_daemon_that_answers_late(watched: Watched, tmp_path: Path) -> None:
    run("modprobe", "fuse")
    run("sh", "-c", "mountpoint -q /sys/fs/fuse/connections || mount -t fusectl none /sys/fs/fuse/connections")
    path = tmp_path / "file"
    with fuse(tmp_path) as hang, path.open("r+b") as stream:
        _allow_dirty_pages(tmp_path)
        # The kernel learns that the daemon knows no flush: a child that closes what it inherits waits for none.
        os.close(os.dup(stream.fileno()))
        with Waiter(path, SIZE // 4096) as waiter:
            stuck: list[StuckCall] = []

            def answer_late() -> None:
                hang.set()
                try:
                    # What was stored is on its way to the daemon when it changes again.
                    write_out(stream.fileno(), 5)
                    waiter.store(5)
                    waiter.blocked()
                    stuck.extend(StuckCalls().look(watched.session, 300_000_000))
                finally:
                    hang.clear()

            waiter.store(5)
            waiter.took()
            watched.waits_for(Wait.WRITEBACK, waiter, "fuse", tmp_path, answer_late)
            (one,) = stuck
            assert (one.at_least, one.reason, one.call.handler) == (False, "writeback", "fuse_page_mkwrite")
            assert (one.call.pid, one.call.file, one.call.mountpoint) == (waiter.pid, str(path), str(tmp_path))
            # The daemon is a thread of ours.
            assert one.peer == f"{Path('/proc/self/comm').read_text().strip()}[{os.getpid()}]"


def _allow_dirty_pages(place: Path) -> None:
    """Let a FUSE filesystem have its share of dirty pages.

    By itself it may have 1 % of them (BDI_CAP_STRICTLIMIT): the fault is throttled, and meanwhile the page that it made
    writable is written back: the store faults again, and there is a second call.
    """
    device = place.stat().st_dev
    for ratio, percent in (("max_ratio", 100), ("min_ratio", 50)):
        Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/{ratio}").write_text(str(percent))


@dataclass
class Server:
    """An NFS server on this host, with the disk that its files are on; ``place`` is where they are mounted from it."""

    disk: Disk
    place: Path

    def mount(self, stage: Stage, more: str = "") -> Path:
        """Mount them once more."""
        options = f"vers=3,nolock,proto=tcp,mountproto=tcp{more}"
        return stage.mount("nfs", f"127.0.0.1:{self.disk.place}", options)

    @contextmanager
    def waiters(self, name: str) -> Iterator[tuple[Waiter, Waiter]]:
        """Two processes that store to a file there, of two users: their requests are not merged, one goes first.

        Both have it open, and not this process: whoever closes what it inherits from us would wait, too.
        """
        path = self.place / name
        path.touch()
        path.chmod(0o666)
        with (
            Waiter(path, PAGES) as waiter,
            Waiter(path, PAGES, lambda *line: ("setpriv", "--reuid", OTHER_USER, *line)) as other,
        ):
            yield waiter, other

    def write_out(self, name: str, page: int, *, wait: bool = False) -> None:
        """Begin to write a page to the server, or ``wait`` until it has it, though maybe not on its disk."""
        # Not by open(): it asks for the size, for which NFS writes the page itself.
        descriptor = os.open(self.place / name, os.O_RDONLY)
        write_out(descriptor, page)
        # To begin and to wait in one would have the server sync it.
        if wait:
            wait_out(descriptor, page)
        os.close(descriptor)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with a disk that can be stopped."""
    make = ("-E", "lazy_itable_init=0,lazy_journal_init=0")
    with Disk("ext4", 64, name="exported", make=make) as disk, Stage("waits-nfs") as stage:
        nfsd(stage, disk.place)
        server = Server(disk, Path())
        server.place = server.mount(stage)
        yield server


def test_an_nfs_server_that_commits_late(watched: Watched, server: Server) -> None:
    with server.waiters("uncommitted") as (waiter, other):

        def commit() -> None:
            _changed(other, 5)
            with server.disk.stopped():
                # The server takes it, and then is asked to have it on its disk.
                server.write_out("uncommitted", 5, wait=True)
                waiter.store(5)
                waiter.blocked()

        watched.waits_for(Wait.SERVER, waiter, "nfs", server.place, commit)


def test_an_nfs_server_that_is_away(watched: Watched, server: Server) -> None:
    with server.waiters("away") as (waiter, other):
        stuck: list[StuckCall] = []

        def be_away() -> None:
            _changed(other, 5)
            with ExitStack() as away:
                with server.disk.stopped():
                    # The server takes it. Whether it is on its disk, nobody can ask any more, nor hear.
                    server.write_out("away", 5, wait=True)
                    away.enter_context(_cut_off())
                waiter.store(5)
                waiter.blocked()
                stuck.extend(StuckCalls().look(watched.session, 300_000_000))

        # Nothing gets there, and the kernel sends again ever later: it takes longer than the server is away.
        watched.waits_for(Wait.SERVER, waiter, "nfs", server.place, be_away)
        (one,) = stuck
        assert (one.at_least, one.reason, one.call.handler) == (False, "server", "nfs_vm_page_mkwrite")
        assert (one.call.pid, one.call.file) == (waiter.pid, str(server.place / "away"))
        assert (one.call.mountpoint, one.peer) == (str(server.place), f"127.0.0.1:{server.disk.place}")


def test_of_nested_waits_the_innermost_counts_once(watched: Watched, server: Server) -> None:
    with server.waiters("nested") as (waiter, other):
        stack = ""

        def write() -> None:
            nonlocal stack
            _changed(other, 5)
            with _cut_off():
                waiter.store(5)
                waiter.blocked()
                stack = Path(f"/proc/{waiter.pid}/stack").read_text()

        # All of it is within nfs_wb_folio, too, which is "server": that has the page written, and waits for that.
        watched.waits_for(Wait.WRITEBACK, waiter, "nfs", server.place, write)
        if release() >= (6, 1):  # in 5.10 a stack ends at a probe
            assert "nfs_wb_" in stack and "_wait_writeback" in stack


@contextmanager
def _cut_off() -> Iterator[None]:
    """Nothing arrives that this host sends to itself."""
    run("tc", "qdisc", "add", "dev", "lo", "root", "blackhole")
    try:
        yield
    finally:
        run("tc", "qdisc", "del", "dev", "lo", "root")


def _changed(waiter: Waiter, page: int) -> None:
    waiter.store(page)
    waiter.took()


#: How far one gets with a page that the cache cannot take: to 6.1 that is waited for before there can be a call.
REACHED: Since[str] = {(5, 10): "read", (6, 1): "", (6, 12): "read opened"}


def test_a_cache_that_takes_a_page_late(watched: Watched, server: Server) -> None:
    (server.disk.place / "cached").write_bytes(bytes(PAGES * 4096))
    been_read = threading.Event()
    reached: list[str] = []
    waiters: list[Waiter] = []
    with Stage(f"waits-cache-{next(_NUMBERS)}") as stage, ExitStack() as left:
        cache = cachefiles(stage)
        place = server.mount(stage, ",fsc,nosharecache")
        descriptor = os.open(place / "cached", os.O_RDONLY)
        left.callback(os.close, descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(descriptor, 4096, 0)
        assert eventually(lambda: _caches(cache))

        def read() -> None:
            os.pread(descriptor, 4096, 5 * 4096)
            been_read.set()

        def get_ready() -> None:
            been_read.wait()
            reached.append("read")
            # Once it is open for writing, nothing more goes to the cache.
            waiters.append(Waiter(place / "cached", PAGES))
            reached.append("opened")

        # From 6.12 a reader whose page came at once stores it in the cache itself, and waits; another has its page.
        readers = [read, read] if release() >= (6, 12) else [read]
        threads = [threading.Thread(target=target) for target in (*readers, get_ready)]
        left.push(lambda *error: waiters[0].__exit__(*error))
        for thread in threads:
            left.callback(thread.join)
        thaw = left.enter_context(ExitStack())
        thaw.enter_context(frozen(cache))
        for thread in threads:
            thread.start()
        assert eventually(lambda: " ".join(reached) == now(REACHED)), reached
        ready = eventually(lambda: "opened" in reached, 0 if "opened" in now(REACHED) else 5)
        assert " ".join(reached) == now(REACHED)
        if ready:

            def store_late() -> None:
                waiters[0].store(5)
                waiters[0].blocked()
                thaw.close()

            watched.waits_for(Wait.CACHE, waiters[0], "nfs", place, store_late)
        else:
            thaw.close()
            threads[-1].join()
            counted, _, _ = watched.waited(waiters[0], lambda: waiters[0].store(5))
            assert sum(h.count for s, h in counted.calls.items() if s.mountpoint == str(place)) == 1
            assert not [s for s, t in counted.waits.items() if t.count and s.reason is Wait.CACHE]


def _caches(cache: Path) -> bool:
    """Whether a file is cached: as FS-Cache tells of it, or in 5.10, by its name in the cache."""
    cookies = Path("/proc/fs/fscache/cookies").read_text().splitlines() if release() >= (6, 1) else []
    active = any(line.split()[5:6] == ["A"] for line in cookies)
    return active or any(path.is_file() for path in (cache / "cache").rglob("*"))
